// The form of parameters: built from the table, checked in its fields, read as the fields of a request.

import { find, make, makeButton } from "./dom.js";
import { ALWAYS_SENT, GROUPS, KEPT, NO_SEED, PARAMETERS, PRESETS, neutralOf } from "./parameters.js";
import { boundsOf, fieldOf, problemOf, valueOf } from "./values.js";

/**
 * Owns the form. Its values are those of the inputs: numbers are texts. Callbacks: `onChange()`, `onReveal()` before a
 * field with a problem gets the focus, `onExample(example)` to show a preset's.
 */
export class Settings {
  #inputs = new Map();
  #sliders = new Map();
  #limits = new Map();
  /** The service's own, which apply to fields that a request leaves out. */
  #defaults = {};
  #groups = [];
  #presets = [];
  #lock;

  constructor(root, presets, callbacks) {
    Object.assign(this, callbacks);
    root.append(...GROUPS.map(([title, parameters], index) => this.#group(title, parameters, index === 0)));
    presets.append(...PRESETS.map((preset) => this.#preset(preset)));
    this.apply(PRESETS[0].values);
  }

  /** Values by name, as `apply` takes them. */
  get values() {
    const read = ([name, input]) => [name, input.type === "checkbox" ? input.checked : input.value];
    return { ...Object.fromEntries([...this.#inputs].map(read)), isSeedLocked: this.#lock.checked };
  }

  apply(values) {
    for (const parameter of PARAMETERS) {
      const { name, kind } = parameter;
      this.#markValid(name);
      this.#inputs.get(name)[kind === "toggle" ? "checked" : "value"] = values[name] ?? neutralOf(parameter);
      this.#follow(name);
    }
    if (values.isSeedLocked !== undefined) this.#lock.checked = values.isSeedLocked;
    this.#refresh();
  }

  /** Takes over the parameters of a request. */
  applyRequest(request, isSeedLocked) {
    const given = PARAMETERS.filter(({ name }) => request[name] !== undefined);
    this.apply({ ...Object.fromEntries(given.map((one) => [one.name, valueOf(one, request[one.name])])), isSeedLocked });
  }

  /** Shows the fields that a view uses. */
  showFor(view) {
    for (const { name, views } of PARAMETERS) this.#fieldOf(name).hidden = Boolean(views && !views.includes(view));
  }

  /**
   * The request's fields, or null if one is invalid: then it says so and gets the focus. Before a run a random seed is
   * set here, unless it is locked, so that every answer can be repeated.
   */
  readFields(isRun) {
    const wrong = PARAMETERS.filter((parameter) => this.#check(parameter));
    if (wrong.length) {
      this.#reveal(wrong[0].name);
      return null;
    }
    const seed = this.#inputs.get("seed");
    if (isRun && (!this.#lock.checked || seed.value === "" || Number(seed.value) === NO_SEED)) {
      seed.value = crypto.getRandomValues(new Uint32Array(1))[0];
    }
    const { values } = this;
    const isSent = (name) => ALWAYS_SENT.has(name) || name in this.#defaults;
    const fields = PARAMETERS.map((one) => [one.name, fieldOf(one, values[one.name], isSent(one.name))]);
    return Object.fromEntries(fields.filter(([, value]) => value !== undefined));
  }

  /** Shows the service's message at the parameter's field. Returns false if there is no such field. */
  showProblem(param, message) {
    const parameter = PARAMETERS.find(({ name }) => name === param?.split(".")[0]);
    if (!parameter) return false;
    const isNamed = message.startsWith(param);
    this.#markInvalid(parameter.name, isNamed ? parameter.label + message.slice(param.length) : message);
    this.#reveal(parameter.name);
    return true;
  }

  /** Offers the service's own defaults as a preset, and begins with it if `isFirst`. */
  offerDefaults(defaults, isFirst) {
    if (!Object.keys(defaults).length || this.#presets[0].preset.name === "Service") return;
    this.#defaults = defaults;
    const given = PARAMETERS.filter(({ name }) => name in defaults).map((one) => [one.name, valueOf(one, defaults[one.name])]);
    const preset = { name: "Service", help: "The service's own defaults.", values: Object.fromEntries(given) };
    find("presets").prepend(this.#preset(preset));
    this.#presets.unshift(this.#presets.pop());
    const length = defaults.max_new_tokens;
    if (isFirst) this.#use({ values: { ...preset.values, ...(length && { max_tokens: length }) } });
    else this.#refresh();
  }

  /** Applies the service's limits. */
  limit(maxima) {
    for (const [name, most] of Object.entries(maxima)) {
      this.#limits.set(name, most);
      this.#inputs.get(name).max = most;
      const slider = this.#sliders.get(name);
      slider.max = Math.min(slider.max, most);
      this.#follow(name);
    }
  }

  #fieldOf(name) {
    return this.#inputs.get(name).closest(".field");
  }

  #check(parameter) {
    const problem = problemOf(parameter, this.values, this.#limits.get(parameter.name));
    if (problem) this.#markInvalid(parameter.name, problem);
    else this.#markValid(parameter.name);
    return problem;
  }

  #reveal(name) {
    this.onReveal();
    const input = this.#inputs.get(name);
    input.closest("details").open = true;
    input.focus();
  }

  #markInvalid(name, message) {
    this.#markValid(name);
    const input = this.#inputs.get(name);
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", `${input.id}-error ${input.id}-help`);
    const head = this.#fieldOf(name).querySelector(".field-head");
    head.after(make("p", { class: "field-error", id: `${input.id}-error`, role: "alert", text: message }));
  }

  #markValid(name) {
    const input = this.#inputs.get(name);
    input.removeAttribute("aria-invalid");
    input.setAttribute("aria-describedby", `${input.id}-help`);
    find(`${input.id}-error`)?.remove();
  }

  #group(title, parameters, isOpen) {
    const active = make("span", { class: "active" });
    this.#groups.push({ parameters, active });
    const summary = make("summary", {}, make("h3", { text: title }), active);
    return make("details", { class: "group", open: isOpen }, summary, ...parameters.map((one) => this.#field(one)));
  }

  #field(parameter) {
    const { name, label, kind, step = 1, help } = parameter;
    const id = `set-${name}`;
    const isNumber = kind === "number" || kind === "seed";
    const [min, max] = kind === "number" ? boundsOf(parameter) : [];
    const input = make(kind === "lines" ? "textarea" : "input", {
      id, name, min, max, step: isNumber && step, rows: 2, autocomplete: "off", spellcheck: "false",
      type: isNumber ? "number" : { toggle: "checkbox", lines: null }[kind], "aria-describedby": `${id}-help`,
      inputmode: kind === "number" && "decimal",
      oninput: () => this.#changed(name),
      onchange: () => this.#check(parameter),
    });
    this.#inputs.set(name, input);
    const head = make("div", { class: "field-head" }, make("label", { for: id, text: label }), input);
    if (kind === "seed") head.append(this.#seedLock());
    return make("div", { class: `field ${kind}` }, head,
      ...(kind === "number" ? [this.#slider(parameter)] : []), make("p", { class: "help", id: `${id}-help`, text: help }));
  }

  /** For pointers only: keyboards and screen readers use the number input beside it. */
  #slider({ name, min, max, step }) {
    const slider = make("input", { type: "range", min, max, step, tabindex: "-1", "aria-hidden": "true", oninput: () => {
      this.#inputs.get(name).value = slider.value;
      this.#changed(name);
    } });
    this.#sliders.set(name, slider);
    return slider;
  }

  #seedLock() {
    this.#lock = make("input", { type: "checkbox", id: "seed-lock", onchange: () => this.onChange() });
    return make("label", { class: "switch" }, this.#lock, "Lock");
  }

  #preset(preset) {
    const radio = make("input", { type: "radio", name: "preset", value: preset.name, onchange: () => {
      this.#use(preset);
      this.onChange();
    } });
    this.#presets.push({ preset, radio });
    return make("label", { class: "chip" }, radio, make("span", { text: preset.name }));
  }

  #use({ values }) {
    const kept = Object.entries(this.values).filter(([name]) => KEPT.has(name));
    this.apply({ ...Object.fromEntries(kept), ...values });
  }

  #changed(name) {
    this.#markValid(name);
    if (name === "seed") this.#lock.checked = this.#inputs.get("seed").value !== "";
    this.#follow(name);
    this.#refresh();
    this.onChange();
  }

  #follow(name) {
    if (this.#sliders.has(name)) this.#sliders.get(name).value = this.#inputs.get(name).value;
  }

  /** Shows the values of closed groups, and the preset that the form is at. */
  #refresh() {
    const { values } = this;
    const isAt = (one, wanted = neutralOf(one)) => String(values[one.name]) === String(wanted);
    for (const { parameters, active } of this.#groups) {
      const given = parameters.filter((one) => !ALWAYS_SENT.has(one.name) && !isAt(one));
      active.textContent = given.map(({ name, label }) => (values[name] === true ? label : `${label} ${values[name]}`)).join(" · ");
    }
    for (const { preset, radio } of this.#presets) {
      radio.checked = PARAMETERS.every((one) => KEPT.has(one.name) || isAt(one, preset.values[one.name]));
    }
    const { help = "Your own settings.", example } = this.#presets.find(({ radio }) => radio.checked)?.preset ?? {};
    find("preset-help").replaceChildren(help, ...(example ? [" ", makeButton("Show with and without it", () => this.onExample(example))] : []));
  }
}
