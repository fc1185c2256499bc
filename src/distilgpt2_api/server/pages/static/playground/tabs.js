// A list of tabs, each with its panel: by pointer, arrow keys, or from the page's code.

const nameOf = (tab) => tab.id.slice("tab-".length);

/** Mutable: which tab is selected, the first one at the start. `onSelect(name)`: a name is the tab's id without `tab-`. */
export class Tabs {
  #tabs;

  constructor(list, onSelect) {
    this.onSelect = onSelect;
    this.#tabs = [...list.querySelectorAll("[role=tab]")];
    for (const tab of this.#tabs) {
      tab.addEventListener("click", () => this.select(nameOf(tab)));
      tab.addEventListener("keydown", (event) => this.#onKey(event));
      const panel = this.#panelOf(tab);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
    }
  }

  get selected() {
    return nameOf(this.#tabs.find((tab) => tab.tabIndex === 0));
  }

  get #shown() {
    return this.#tabs.filter((tab) => !tab.hidden);
  }

  /** Without an effect if there is no such tab. */
  select(name) {
    if (!this.#shown.some((tab) => nameOf(tab) === name)) return;
    for (const tab of this.#tabs) {
      const isChosen = nameOf(tab) === name;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      this.#panelOf(tab).hidden = !isChosen;
    }
    this.onSelect(name);
  }

  /** Shows or hides tabs. If the selected one is hidden, the first that is left is selected. */
  show(isShown) {
    for (const tab of this.#tabs) tab.hidden = !isShown(nameOf(tab));
    if (!isShown(this.selected)) this.select(nameOf(this.#shown[0]));
  }

  #panelOf(tab) {
    return document.getElementById(tab.getAttribute("aria-controls"));
  }

  #onKey(event) {
    const tabs = this.#shown;
    const at = tabs.indexOf(event.target);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const tab = tabs[(to + tabs.length) % tabs.length];
    this.select(nameOf(tab));
    tab.focus();
  }
}
