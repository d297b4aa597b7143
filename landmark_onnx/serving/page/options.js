// How to search: which index, how many, and the steps after the search.

import { readStep, writeStep } from "./address.js";
import { $, count, el, show } from "./dom.js";

const EXPANSION = "alpha-qe";
const WORDS = {
  k: "neighbours (k)",
  alpha: "exponent (alpha)",
  lambda: "share of the first distance (lambda)",
};
const ID = (step, parameter) => `step-${step}-${parameter}`;

export class Options {
  // changed(): the options have other values, which is worth another search.
  constructor({ changed }) {
    this.changed = changed;
    this.info = { indexes: [], steps: [] };
    this.steps = [];
    $("options-form").onsubmit = (event) => event.preventDefault();
    for (const id of ["index", "top", "approximate"]) $(id).onchange = () => this.#decided();
    for (const id of ["expand", "rerank"]) $(id).onchange = () => this.#restep();
  }

  get index() {
    return $("index").value;
  }

  get values() {
    return {
      index: this.index,
      top: Number($("top").value),
      steps: this.steps,
      approximate: this.facts?.approximate && !this.steps.length && $("approximate").checked,
    };
  }

  // What /v1/info says of the index that is chosen.
  get facts() {
    return this.info.indexes.find(({ name }) => name === this.index);
  }

  offer(info) {
    const { index } = this;
    this.info = info;
    $("index").replaceChildren(...info.indexes.map(({ name }) => el("option", { value: name }, name)));
    if (info.indexes.some(({ name }) => name === index)) $("index").value = index;
    show($("index-field"), info.indexes.length > 1);
    const others = info.steps.filter(({ name }) => name !== EXPANSION);
    const choices = others.map(({ name }) => el("option", { value: name }, name));
    $("rerank").replaceChildren(el("option", { value: "" }, "none"), ...choices);
    show($("expansion-field"), others.length < info.steps.length);
    show($("rerank-field"), others.length > 0);
    this.set({ ...this.values, index: this.index });
  }

  // As an address has it; what is not there is left as it is.
  set({ index, top, steps, approximate }) {
    if (index && this.info.indexes.some(({ name }) => name === index)) $("index").value = index;
    if (top) $("top").value = top;
    if (steps) this.steps = steps;
    if (approximate !== undefined) $("approximate").checked = approximate;
    const read = this.steps.map(readStep);
    const expansion = read.find(({ name }) => name === EXPANSION);
    const rerank = read.find(({ name }) => name !== EXPANSION);
    $("expand").checked = Boolean(expansion);
    $("rerank").value = rerank?.name ?? "";
    this.#parameters($("expansion-parameters"), expansion ?? null);
    this.#parameters($("rerank-parameters"), rerank ?? null);
    this.#settle();
  }

  #settle() {
    const kind = this.facts?.approximate;
    show($("approximate-field"), Boolean(kind));
    $("approximate").disabled = this.steps.length > 0;
    $("approximate-kind").textContent = this.steps.length ? "steps search exactly" : `by ${kind}`;
  }

  #parameters(place, chosen) {
    const step = chosen && this.info.steps.find(({ name }) => name === chosen.name);
    place.replaceChildren(...(step?.parameters ?? []).map((each) => this.#field(step, each, chosen.values[each.name])));
  }

  #field(step, parameter, given) {
    const id = ID(step.name, parameter.name);
    const value = given ?? String(parameter.default);
    const changed = () => this.#restep();
    const words = WORDS[parameter.name] ?? parameter.name;
    const input =
      parameter.kind === "choice"
        ? el("select", { id, onchange: changed }, ...parameter.choices.map((name) => el("option", { value: name }, name)))
        : el("input", {
            id,
            type: "number",
            min: parameter.min ?? "",
            max: parameter.max ?? "",
            step: parameter.kind === "int" ? 1 : "any",
            required: true,
            onchange: changed,
          });
    input.value = value;
    return el("label", {}, el("span", {}, words), input);
  }

  #spec(name) {
    const step = this.info.steps.find((each) => each.name === name);
    const value = (parameter) => $(ID(name, parameter.name))?.value ?? String(parameter.default);
    return writeStep(step, Object.fromEntries(step.parameters.map((each) => [each.name, value(each)])));
  }

  #restep() {
    const names = [$("expand").checked && EXPANSION, $("rerank").value].filter(Boolean);
    if (!this.#whole()) return;
    this.set({ steps: names.map((name) => this.#spec(name)) });
    this.changed();
  }

  #decided() {
    if (!this.#whole()) return;
    this.#settle();
    this.changed();
  }

  // Says what is wrong with a field, in the browser's own words.
  #whole() {
    return $("options-form").reportValidity();
  }
}

// What was asked, in words: after the heading of the results, and in exports.
export function optionsInWords({ top, steps, approximate }) {
  return [`top ${count(top)}`, ...steps, approximate && "approximate"].filter(Boolean).join(" · ");
}
