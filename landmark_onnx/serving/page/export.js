// What is on screen as a file.

import { el } from "./dom.js";

const HEAD = ["rank", "id", "score", "landmark", "index", "generation", "options"];

// A spreadsheet runs a cell that begins so; an apostrophe makes it text.
const guarded = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

export function csv(hits, { index, generation, options }) {
  const [place, how] = [index, options].map(guarded);
  const rows = hits.map(({ rank, id, score, landmark }) =>
    [rank, guarded(id), score, guarded(landmark ?? ""), place, generation, how].map(String),
  );
  return [HEAD, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
}

export function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
