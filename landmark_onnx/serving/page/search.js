// What the page asks about a photo. A query is {file} or {index, id}, with {name, size} once its picture is there.

import { ask, pictureAddress, pictureData } from "./api.js";

const cropOf = (region) => (region ? [region.x, region.y, region.width, region.height] : undefined);

// What an image of an index is asked about beside its neighbours, its picture is sent for.
async function sent(query, options, signal, path) {
  query.data ??= query.file ?? (await pictureData(pictureAddress(query.index, query.id, 2048), signal));
  const body = new FormData();
  body.append("image", query.data, query.name);
  body.append("options", JSON.stringify(options));
  return ask(path, { body, signal });
}

const byId = ({ id, index }, options, signal, path) => ask(path, { body: { images: [{ id, index }], options }, signal });

export function findNeighbours({ query, region, options }, signal) {
  const { index, top, steps, approximate } = options;
  const given = { top, ...(steps.length && { steps }), ...(approximate && { approximate }) };
  if (query.file || region) return sent(query, { index, ...given, crop: cropOf(region) }, signal, "v1/search");
  if (query.index !== index) return byId(query, { index, ...given }, signal, "v1/search");
  return ask(`v1/indexes/${encodeURIComponent(index)}/search`, { query: { id: query.id, ...given }, signal });
}

export function recognise({ query, region, options: { index } }, signal) {
  const how = query.file || region ? sent : byId;
  return how(query, { index, crop: cropOf(region) }, signal, "v1/recognize");
}

export const classify = ({ query, region }, model, signal) =>
  sent(query, { model, crop: cropOf(region) }, signal, "v1/classify");

export const detect = (query, model, signal) => sent(query, { model }, signal, "v1/detect");

export const info = () => ask("v1/info");

// Why a file cannot be searched by, in the form of a problem; null if it may.
export function unfit(file, limits) {
  const formats = formatsOf(limits);
  const [kind, format] = file.type.split("/");
  if (file.type && !(kind === "image" && formats.includes(format))) {
    const detail = `${file.name} is ${file.type}; wanted ${formats.join(", ")}.`;
    return { title: "This is no photo that the server reads", detail };
  }
  if (file.size > limits.image_bytes) {
    const detail = `${file.name} has ${file.size} bytes; the server takes ${limits.image_bytes}.`;
    return { title: "This photo is too large", detail };
  }
  return null;
}

export const formatsOf = (limits) => limits.formats.map((name) => name.toLowerCase());
