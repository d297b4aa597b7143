// What went wrong, with what to do about it.

import { $, copyButton, el, plural, show } from "./dom.js";
import { useKey } from "./api.js";

let counting = 0;

export function dismiss() {
  clearInterval(counting);
  show($("notice"), false);
  $("notice").replaceChildren();
}

// One problem at a time. again(): asks once more.
export function report(problem, again) {
  dismiss();
  const actions = el("p", { class: "actions" });
  const text = el(
    "div",
    { role: "alert" },
    el("h2", {}, problem.title ?? "Something failed in this page"),
    el("p", {}, problem.detail ?? problem.message),
  );
  $("notice").append(text, actions);
  $("notice").className = "notice bad";
  if (problem.status === 401) actions.before(keyForm(again));
  else if (again) actions.append(retry(problem, again));
  actions.append(dismissButton());
  if (problem.instance) {
    actions.append(el("code", {}, problem.instance), copyButton("Copy request id", problem.instance));
  }
  show($("notice"), true);
}

// What is no failure, but worth knowing.
export function mention(title, detail, action = null) {
  dismiss();
  const words = el("div", { role: "alert" }, el("h2", {}, title), el("p", {}, detail));
  $("notice").append(words, el("p", { class: "actions" }, action, dismissButton()));
  $("notice").className = "notice";
  show($("notice"), true);
}

export function button(words, act) {
  const pressed = () => {
    dismiss();
    act();
  };
  return el("button", { type: "button", class: "small", onclick: pressed }, words);
}

const dismissButton = () => button("Dismiss", () => $("status").focus());

// A busy server says when to come back; the page then does so by itself, once a second counted down.
function retry(problem, again) {
  if (![429, 503].includes(problem.status) || !problem.retryAfter) return button("Try again", again);
  let left = Math.ceil(problem.retryAfter);
  const clock = el("span", { class: "clock" });
  const tick = () => (clock.textContent = `Trying again in ${plural(left, "second")}. `);
  tick();
  counting = setInterval(() => {
    left -= 1;
    tick();
    if (left > 0) return;
    dismiss();
    again();
  }, 1000);
  return el("span", {}, clock, button("Try now", again));
}

function keyForm(again) {
  const field = el("input", { type: "password", id: "key", required: true, autocomplete: "off", spellcheck: false });
  const keep = el("input", { type: "checkbox", id: "keep-key" });
  const given = (event) => {
    event.preventDefault();
    useKey(field.value.trim(), keep.checked);
    dismiss();
    again();
  };
  return el(
    "form",
    { class: "key", onsubmit: given },
    el("label", {}, el("span", {}, "Key"), field),
    el("button", { class: "primary" }, "Use this key"),
    el("label", { class: "check" }, keep, "Remember it in this tab until it is closed"),
  );
}
