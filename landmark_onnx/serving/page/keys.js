// Keys of one letter, which can be switched off for those whose tools type by themselves.

import { $, keep, kept } from "./dom.js";

const OFF = "landmark-onnx.keys-off";

// actions: key -> what it does.
export function listen(actions) {
  $("keys-on").checked = !kept("localStorage", OFF);
  $("keys-on").onchange = () => keep("localStorage", OFF, !$("keys-on").checked);
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
