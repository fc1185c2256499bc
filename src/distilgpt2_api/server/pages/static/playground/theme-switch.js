// The button that switches between light and dark. `theme.js` applies the choice before the first paint.

import { announce } from "./dom.js";

export function switchTheme() {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const current = document.documentElement.dataset.theme ?? (isDark ? "dark" : "light");
  const theme = current === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("distilgpt2-playground:theme", theme);
  } catch {
    // Storage is blocked: the choice applies to this page only.
  }
  announce(`${theme} colours`);
}
