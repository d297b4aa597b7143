// What the page asks about a photo. A query is {file} or {index, id}, with {name, size} once its picture is there.

import { ask } from "./api.js";

// [x, y, width, height] of the photo as uploaded; of an indexed one, whose size only the server knows, shares of it.
export function cropOf(query, region) {
  if (!region) return undefined;
  const { x, y, width, height } = region;
  if (query.file) return [x, y, width, height];
  const share = (value, side) => Number((value / side).toFixed(4));
  const { size } = query;
  return [share(x, size.width), share(y, size.height), share(width, size.width), share(height, size.height), "relative"];
}

export function regionOf(crop, size) {
  const [x, y, width, height] = crop;
  return { x: x * size.width, y: y * size.height, width: width * size.width, height: height * size.height };
}

function post(path, query, options, signal) {
  if (!query.file) {
    return ask(path, { body: { images: [{ id: query.id, index: query.index }], options }, signal });
  }
  const body = new FormData();
  body.append("image", query.file, query.name);
  body.append("options", JSON.stringify(options));
  return ask(path, { body, signal });
}

export function findNeighbours({ query, region, options }, signal) {
  const { index, top, steps, approximate } = options;
  const given = { top, ...(steps.length && { steps }), ...(approximate && { approximate }) };
  if (!query.file && !region && query.index === index) {
    const path = `v1/indexes/${encodeURIComponent(index)}/search`;
    return ask(path, { query: { id: query.id, ...given }, signal });
  }
  return post("v1/search", query, { index, ...given, crop: cropOf(query, region) }, signal);
}

export const recognise = ({ query, region, options }, signal) =>
  post("v1/recognize", query, { index: options.index, crop: cropOf(query, region) }, signal);

export const classify = ({ query, region }, model, signal) =>
  post("v1/classify", query, { model, crop: cropOf(query, region) }, signal);

export const detect = (query, model, signal) => post("v1/detect", query, { model }, signal);

export const info = () => ask("v1/info");

// Why a file cannot be searched by, in the form of a problem; null if it may.
export function unfit(file, limits) {
  const formats = formatsOf(limits);
  const [kind, format] = file.type.split("/");
  if (file.type && !(kind === "image" && formats.includes(format))) {
    const detail = `${file.name} is ${file.type}; wanted ${formats.join(", ")}.`;
    return { title: "This is no photo that the server reads", detail };
  }
  if (limits.image_bytes && file.size > limits.image_bytes) {
    const detail = `${file.name} has ${file.size} bytes; the server takes ${limits.image_bytes}.`;
    return { title: "This photo is too large", detail };
  }
  return null;
}

export function formatsOf(limits) {
  const formats = (limits.formats ?? ["jpeg", "png", "webp"]).map((name) => String(name).toLowerCase());
  return formats.map((name) => (name === "jpg" ? "jpeg" : name));
}
