// Elements, numbers and words. Text reaches the page as text nodes alone, whatever it holds.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A symbol of the page's own; it says nothing, so what it stands in needs words.
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class" || name.includes("-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function show(node, shown) {
  node.hidden = !shown;
}

const PLAIN = new Intl.NumberFormat("en");

export const count = (number) => PLAIN.format(number);

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export const score = (number) => number.toFixed(4);

export const percent = (share) => `${Math.round(share * 100)} %`;

export function bytes(number) {
  return number >= 1 << 20 ? `${Math.round(number / (1 << 20))} MiB` : `${Math.ceil(number / 1024)} KiB`;
}

export function seconds(number) {
  return number < 0.1 ? `${Math.ceil(1000 * number)} ms` : `${number.toFixed(2)} s`;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyFromField(text);
  }
}

// Without https there is no navigator.clipboard.
function copyFromField(text) {
  const field = el("textarea", { value: text, class: "off-screen", "aria-hidden": "true", tabIndex: -1 });
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return copied;
}

export function copyButton(words, text) {
  const button = el("button", { type: "button", class: "small" }, words);
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text)) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = words), 2000);
  });
  return button;
}

// What a browser remembers in the "localStorage" or "sessionStorage"; some keep nothing.
export function kept(storage, name) {
  try {
    return window[storage].getItem(name) ?? "";
  } catch {
    return "";
  }
}

// What is false or "" is forgotten.
export function keep(storage, name, value) {
  try {
    if (value) window[storage].setItem(name, value);
    else window[storage].removeItem(name);
  } catch {
    // It lasts as long as the page.
  }
}
