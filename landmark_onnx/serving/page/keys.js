// Keys of one letter, which can be switched off for those whose tools type by themselves.

import { $ } from "./dom.js";

const OFF = "landmark-onnx.keys-off";

// actions: key -> what it does.
export function listen(actions) {
  $("keys-on").checked = !isOff();
  $("keys-on").addEventListener("change", () => remember(!$("keys-on").checked));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (!$("keys-on").checked || document.querySelector("dialog[open]")) return;
    if (event.target.closest?.("input:not([type=checkbox]), select, textarea")) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function isOff() {
  try {
    return localStorage.getItem(OFF) === "true";
  } catch {
    return false;
  }
}

function remember(off) {
  try {
    if (off) localStorage.setItem(OFF, "true");
    else localStorage.removeItem(OFF);
  } catch {
    // A browser that keeps nothing: the switch lasts as long as the page.
  }
}
