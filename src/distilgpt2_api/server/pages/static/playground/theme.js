// Runs before the first paint, so that a dark theme does not flash white. The choice is stored per browser.
"use strict";
try {
  const theme = localStorage.getItem("distilgpt2-playground:theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is blocked: the system's colour scheme applies.
}
