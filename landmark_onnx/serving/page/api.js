// Requests to the server, and what it says when it has no answer.

import { keep, kept } from "./dom.js";

const KEPT = "landmark-onnx.key";
let key = kept("sessionStorage", KEPT);

// What went wrong: the members of the server's problem details, or the page's own words in the same form.
class Problem extends Error {
  constructor({ kind, status = 0, title, detail = "", instance = "", retryAfter = 0 }) {
    super(detail || title);
    Object.assign(this, { kind, status, title, detail, instance, retryAfter });
  }
}

export function useKey(text, lasting) {
  key = text;
  keep("sessionStorage", KEPT, lasting && text);
}

export const hasKey = () => key !== "";

function addressed(path, query = {}) {
  const url = new URL(path, document.baseURI);
  url.search = "";
  for (const [name, value] of Object.entries(query)) {
    for (const each of [value].flat()) if (each !== undefined && each !== null) url.searchParams.append(name, each);
  }
  return url;
}

async function fetched(url, init = {}) {
  const headers = new Headers(init.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response;
  try {
    response = await fetch(url, { ...init, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : offline();
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

const offline = () =>
  new Problem({
    kind: "offline",
    title: "The server does not answer",
    detail: "It may have stopped, or this device may have no connection to it.",
  });

async function problemOf(response) {
  let said = {};
  try {
    said = await response.json();
  } catch {
    // Something between the page and the server answered in its place.
  }
  return new Problem({
    kind: String(said.type ?? "").split(":").pop() || "unknown",
    status: response.status,
    title: said.title ?? `The server answered ${response.status} ${response.statusText}`,
    detail: said.detail ?? "",
    instance: said.instance ?? response.headers.get("X-Request-Id") ?? "",
    retryAfter: Number(said.retry_after ?? response.headers.get("Retry-After") ?? 0) || 0,
  });
}

// body: FormData, or data that goes as JSON; without it this is a GET.
export async function ask(path, { query, body, signal } = {}) {
  const init = { signal, headers: { Accept: "application/json" } };
  if (body) init.method = "POST";
  if (body instanceof FormData) init.body = body;
  else if (body) {
    init.body = JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  const response = await fetched(addressed(path, query), init);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ kind: "damaged", title: "The answer broke off", detail: "What came is not whole." });
  }
}

export function pictureAddress(index, id, side) {
  return addressed(`v1/indexes/${encodeURIComponent(index)}/image`, { id, side }).href;
}

const loads = new WeakMap(); // <img> -> AbortController of its picture

// Puts a picture of an index into an <img>; with a key it has to be fetched, for an <img> cannot send one.
export async function loadPicture(image, index, id, side) {
  const address = pictureAddress(index, id, side);
  if (!key) {
    image.src = address;
    return;
  }
  const load = new AbortController();
  loads.set(image, load);
  try {
    image.src = await pictureBlob(address, load.signal);
  } catch {
    if (!load.signal.aborted) image.dispatchEvent(new Event("error"));
  }
}

// The signal's abort gives its memory back.
export async function pictureBlob(address, signal) {
  const data = await (await fetched(address, { signal })).blob();
  signal.throwIfAborted();
  const url = URL.createObjectURL(data);
  signal.addEventListener("abort", () => URL.revokeObjectURL(url));
  return url;
}

// When what showed pictures goes, they are fetched no further, and their memory is given back.
export function releasePictures(node) {
  for (const image of node.querySelectorAll("img")) loads.get(image)?.abort();
}
