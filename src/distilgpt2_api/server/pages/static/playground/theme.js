// Before anything is drawn, so that nobody who chose dark is dazzled. The choice is a browser's, not a session's.
"use strict";
try {
  const theme = localStorage.getItem("distilgpt2-playground:theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is blocked: the system's scheme it is.
}
