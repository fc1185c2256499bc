// The form of parameters: built from the table, read as the fields of a request.

import { find, formatCount, make } from "./dom.js";
import { ALWAYS_SENT, GROUPS, KEPT, NO_SEED, PARAMETERS, PRESETS, fieldOf } from "./parameters.js";

const neutralOf = (parameter) => parameter.neutral ?? (parameter.kind === "toggle" ? false : "");

/** Owns the form. Its values are those of the inputs: numbers are texts, so that a wrong one can be reported. */
export class Settings {
  #inputs = new Map();
  #sliders = new Map();
  #groups = [];
  #presets = [];
  #lock;

  constructor(root, presets, onChange) {
    this.onChange = onChange;
    root.append(...GROUPS.map((group) => this.#group(group)));
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
      const value = values[parameter.name] ?? neutralOf(parameter);
      const input = this.#inputs.get(parameter.name);
      if (parameter.kind === "toggle") input.checked = Boolean(value);
      else input.value = value;
      this.#follow(parameter.name);
    }
    if (values.isSeedLocked !== undefined) this.#lock.checked = values.isSeedLocked;
    this.#refresh();
  }

  #use(preset) {
    const kept = Object.fromEntries(Object.entries(this.values).filter(([name]) => KEPT.has(name)));
    this.apply({ ...kept, ...preset.values });
  }

  /**
   * The request's fields. Unless the seed is locked, a random one is set here, so that every answer can be repeated.
   * Throws FieldError for a value that can't be sent.
   */
  readFields() {
    const seed = this.#inputs.get("seed");
    if (!this.#lock.checked || seed.value === "" || Number(seed.value) === NO_SEED) {
      seed.value = crypto.getRandomValues(new Uint32Array(1))[0];
    }
    const { values } = this;
    const fields = PARAMETERS.map((parameter) => [parameter.name, fieldOf(parameter, values[parameter.name])]);
    return Object.fromEntries(fields.filter(([, value]) => value !== undefined));
  }

  /** Marks only the field with this name, if there is one, as invalid, and brings it into view. */
  markInvalid(name, message) {
    this.clearInvalid();
    const input = this.#inputs.get(name?.split(".")[0]);
    if (!input) return;
    input.setAttribute("aria-invalid", "true");
    input.closest("details").open = true;
    const field = input.closest(".field");
    field.append(make("p", { class: "field-error", id: `${input.id}-error`, text: message }));
    input.setAttribute("aria-describedby", `${input.id}-help ${input.id}-error`);
  }

  clearInvalid() {
    for (const input of this.#inputs.values()) {
      if (!input.hasAttribute("aria-invalid")) continue;
      input.removeAttribute("aria-invalid");
      input.setAttribute("aria-describedby", `${input.id}-help`);
      find(`${input.id}-error`)?.remove();
    }
  }

  /** Applies the service's limits. */
  limit(maxima) {
    for (const [name, max] of Object.entries(maxima)) {
      for (const input of [this.#inputs.get(name), this.#sliders.get(name)]) input.max = Math.min(input.max, max);
      this.#follow(name);
    }
  }

  #group({ title, isOpen, parameters }) {
    const changed = make("span", { class: "changed" });
    const summary = make("summary", {}, make("span", { text: title }), changed);
    this.#groups.push({ parameters, changed });
    return make("details", { class: "group", open: isOpen }, summary, ...parameters.map((one) => this.#field(one)));
  }

  #field(parameter) {
    const { name, label, kind, min, max, step, help } = parameter;
    const id = `set-${name}`;
    const isLong = kind === "lines";
    const types = { number: "number", seed: "number", toggle: "checkbox" };
    const input = make(isLong ? "textarea" : "input", {
      id, name, min, max, step, rows: isLong && 2, autocomplete: "off",
      spellcheck: "false", type: isLong ? null : (types[kind] ?? "text"), "aria-describedby": `${id}-help`,
      inputmode: kind === "number" && "decimal",
      oninput: () => this.#changed(name),
    });
    this.#inputs.set(name, input);
    const head = make("div", { class: "field-head" }, make("label", { for: id, text: label }), input);
    const field = make("div", { class: `field ${kind}` }, head);
    if (kind === "number") field.append(this.#slider(parameter));
    if (kind === "seed") head.append(this.#seedLock());
    field.append(make("p", { class: "help", id: `${id}-help`, text: help }));
    return field;
  }

  /** For pointers only: keyboards and screen readers use the number input beside it. */
  #slider({ name, min, max, step }) {
    const slider = make("input", {
      type: "range", min, max, step, tabindex: "-1", "aria-hidden": "true",
      oninput: () => {
        this.#inputs.get(name).value = slider.value;
        this.#changed(name);
      },
    });
    this.#sliders.set(name, slider);
    return slider;
  }

  #seedLock() {
    this.#lock = make("input", { type: "checkbox", id: "seed-lock", onchange: () => this.onChange() });
    return make("label", { class: "lock", for: "seed-lock", title: "Keep this seed for the next run" },
      this.#lock, make("span", { text: "Lock" }));
  }

  #preset(preset) {
    const radio = make("input", {
      type: "radio", name: "preset", value: preset.name, onchange: () => {
        this.#use(preset);
        this.onChange();
      },
    });
    this.#presets.push({ preset, radio });
    return make("label", { class: "chip", title: preset.help }, radio, make("span", { text: preset.name }));
  }

  #changed(name) {
    this.clearInvalid();
    if (name === "seed") this.#lock.checked = this.#inputs.get("seed").value !== "";
    this.#follow(name);
    this.#refresh();
    this.onChange();
  }

  #follow(name) {
    const slider = this.#sliders.get(name);
    if (!slider) return;
    slider.value = this.#inputs.get(name).value;
    slider.style.setProperty("--part", (slider.value - slider.min) / (slider.max - slider.min || 1));
  }

  #refresh() {
    const { values } = this;
    for (const { parameters, changed } of this.#groups) {
      const isChanged = (one) => !ALWAYS_SENT.has(one.name) && !KEPT.has(one.name)
        && fieldOf(one, values[one.name]) !== undefined;
      const count = parameters.filter(isChanged).length;
      changed.textContent = count ? formatCount(count, "change") : "";
    }
    for (const { preset, radio } of this.#presets) radio.checked = this.#isAt(preset, values);
  }

  #isAt(preset, values) {
    return PARAMETERS.filter(({ name }) => !KEPT.has(name)).every((parameter) => {
      const wanted = preset.values[parameter.name] ?? neutralOf(parameter);
      const value = values[parameter.name];
      return parameter.kind === "number" ? Number(value) === wanted : value === wanted;
    });
  }
}
