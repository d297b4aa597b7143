// What the page asks about a photo. A query is {file} or {index, id}, with {name, size} once its picture is there.

import { ask } from "./api.js";
import { shares, sides } from "./region.js";

// A file is sent, an image of an index is named: its region is in shares, for it may be larger than its picture.
function about(path, { query, region }, given, signal) {
  const { file, name, id, index, size } = query;
  const crop = region ? (file ? sides(region) : [...shares(region, size), "relative"]) : undefined;
  const options = { ...given, crop };
  if (!file) return ask(path, { body: { images: [{ id, index }], options }, signal });
  const body = new FormData();
  body.append("image", file, name);
  body.append("options", JSON.stringify(options));
  return ask(path, { body, signal });
}

export function findNeighbours(asked, signal) {
  const { query, region, options } = asked;
  const { index, top, steps, approximate } = options;
  const given = { top, ...(steps.length && { steps }), ...(approximate && { approximate }) };
  if (query.file || region || query.index !== index) return about("v1/search", asked, { index, ...given }, signal);
  return ask(`v1/indexes/${encodeURIComponent(index)}/search`, { query: { id: query.id, ...given }, signal });
}

export const recognise = (asked, signal) => about("v1/recognize", asked, { index: asked.options.index }, signal);

export const classify = (asked, model, signal) => about("v1/classify", asked, { model }, signal);

// The boxes in pixels of the picture that is shown.
export async function detect(query, model, signal) {
  const { detections, size } = (await about("v1/detect", { query }, { model }, signal)).results[0];
  const { width, height } = query.size;
  const fit = (side, at) => (side * (at % 2 ? height : width)) / size[at % 2];
  return detections.map((box) => ({ ...box, bbox: box.bbox.map(fit) }));
}

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
