// The page: what is shown now, what is asked next, and how one leads to the other.

import { loadPicture, releasePictures } from "./api.js";
import { readAddress, writeAddress } from "./address.js";
import { PAGE, large, renderBoxes, renderClasses, renderHits, renderLandmark, renderVotes } from "./answers.js";
import { $, bytes, copy, count, el, plural, seconds, show } from "./dom.js";
import { csv, save } from "./export.js";
import { listen } from "./keys.js";
import { button, dismiss, mention, report } from "./notices.js";
import { Options, optionsInWords } from "./options.js";
import { between, ofShares, shares, written } from "./region.js";
import { classify, detect, findNeighbours, formatsOf, info, recognise, unfit } from "./search.js";
import { Stage } from "./stage.js";

const PATIENCE = 2000; // ms until the queue is looked at
const REMEMBERED = 20; // searches that "back" shows without asking again

let server = { indexes: [], models: [], steps: [] };
let state = { query: null, region: null, options: null, answer: null, recognition: null, classes: [], detected: null };
let shown = PAGE;
let drawn = {}; // what of the state is on the page
let running = null; // AbortController of the search
let looking = null; // AbortController of the detection
const entries = new Map(); // number of a history entry -> state
let entry = null;
let early; // a photo that comes too soon

const tell = (words) => ($("status").textContent = words);
const options = new Options({ changed: () => (state.query ? search() : welcome()) });
const stage = new Stage({ tell, changed: regionChanged, released: () => search() });

// --- what the server has ---

async function begin() {
  tell("Asking the server what it has …");
  try {
    server = await info();
  } catch (error) {
    tell("");
    report(error, begin);
    return;
  }
  options.offer(server);
  const accepted = formatsOf(server.limits).map((name) => `image/${name}`);
  for (const id of ["file", "camera"]) $(id).accept = accepted.join(",");
  show($("options-button"), server.indexes.length > 0);
  if (!server.indexes.length) {
    $("answers").append($("objects"));
    $("objects").open = true;
  }
  fromAddress();
  bring(early);
}

const modelsFor = (task) => server.models.filter((model) => model.task === task).map(({ name }) => name);
const detector = () => server.detector ?? modelsFor("det")[0] ?? null;
const canAnswer = () => server.indexes.length > 0 || modelsFor("cls").length > 0 || detector() !== null;

function welcome() {
  show($("work"), false);
  show($("welcome"), true);
  const facts = options.facts;
  show($("drop"), canAnswer());
  show($("by-id"), Boolean(facts?.rows));
  $("welcome-heading").textContent = server.indexes.length ? "Find a place by a photo" : "Ask what is on a photo";
  const { formats, image_bytes: most, pixels } = server.limits;
  const limits = `${formats.join(", ")} · up to ${bytes(most)} · ${Math.round(pixels / 1e6)} megapixels`;
  $("accepted").textContent = `${limits}. The photo goes to this server as it is.`;
  $("has").replaceChildren(...inventory());
  if (!canAnswer()) tell("This server has no index, no classifier and no detector: there is nothing to ask it by this page.");
  else if (facts && !facts.rows) tell(`The index ${facts.name} is empty.`);
  else tell("Ready.");
  document.title = "landmark-onnx";
}

function inventory() {
  const line = (term, values) =>
    el("div", {}, el("dt", {}, term), ...(values.length ? values : ["none"]).map((text) => el("dd", {}, text)));
  const indexes = server.indexes.map((index) => `${index.name}: ${stateOf(index)}`);
  const kinds = { retrieval: "embeds", cls: "classifies", det: "detects" };
  const models = server.models.map(({ name, task }) => `${name} ${kinds[task] ?? task}`);
  const list = el("dl", {}, line("Indexes", indexes), line("Models", models));
  const empty = options.facts && !options.facts.rows;
  const hint = empty && el("p", {}, "Images get into it by ", el("code", {}, "landmark-onnx index add"), "; this page then finds them.");
  return [el("h2", {}, "This server has"), list, hint].filter(Boolean);
}

// --- a photo comes ---

async function bring(file) {
  if (!file) return;
  if (!server.version) {
    early = file;
    return;
  }
  const name = file.name || "photo";
  const refused = unfit(file, server.limits);
  if (refused) {
    report(refused);
    return;
  }
  tell(`Reading ${name} …`);
  const query = { file, name, url: URL.createObjectURL(file), size: null };
  enter(query, { push: true });
  if (!(await place(query, null))) return;
  const { width, height } = query.size;
  if (width * height > server.limits.pixels) {
    const detail = `${name} has ${count(width * height)} pixels; the server takes ${count(server.limits.pixels)}.`;
    report({ title: "This photo is too large", detail });
    return;
  }
  search({ focus: true });
}

async function bringIndexed({ index, id, crop }, { push = true } = {}) {
  const query = { index, id, name: id, size: null };
  enter(query, { push });
  query.placed = place(query, crop);
  if (crop) await query.placed;
  if (state.query === query) search({ focus: true });
}

function enter(query, { push }) {
  running?.abort();
  looking?.abort();
  dismiss();
  state = { query, region: null, options: options.values, answer: null, recognition: null, classes: [], detected: null };
  open(push);
  render();
  scrollTo(0, 0);
}

function open(push) {
  if (push || entry === null) {
    entry = `${performance.timeOrigin}-${entries.size}-${performance.now()}`;
    history.pushState({ entry }, "", address() ?? location.pathname);
  }
  keep();
}

// The address of what is shown, or null: an uploaded photo has none.
function address() {
  const { query, region, options: asked } = state;
  if (!query || query.file || query.index !== asked.index) return null;
  return writeAddress({ ...asked, id: query.id, crop: region && shares(region, query.size) });
}

function keep() {
  entries.delete(entry);
  entries.set(entry, state);
  for (const [oldest, { query }] of entries) {
    if (entries.size <= REMEMBERED) break;
    entries.delete(oldest);
    if (query?.url && ![...entries.values()].some((each) => each.query === query)) URL.revokeObjectURL(query.url);
  }
}

// Shows the query's picture. crop: shares of it, of an address. Answers whether there is one.
async function place(query, crop) {
  const image = $("photo");
  releasePictures($("stage"));
  stage.reset();
  image.removeAttribute("src");
  image.alt = `The photo that is searched by: ${query.name}`;
  show($("stage"), true);
  if (query.file) image.src = query.url;
  else await loadPicture(image, query.index, query.id, 2048);
  try {
    await image.decode();
  } catch {
    if (state.query === query) unreadable(query);
    return false;
  }
  if (state.query !== query) return false;
  query.size = { width: image.naturalWidth, height: image.naturalHeight };
  stage.show(query.size, crop ? ofShares(crop, query.size) : state.region);
  name();
  return true;
}

function unreadable(query) {
  show($("stage"), false);
  if (!query.file) {
    $("query-name").textContent = `${query.name}: its picture is not where it was.`;
    return;
  }
  tell("");
  const detail = `${query.name} is damaged, or no image that this browser knows.`;
  report({ title: "This photo cannot be read", detail });
}

// --- asking ---

async function search({ focus = false } = {}) {
  const { query } = state;
  if (!query) return;
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const asked = { query, region: stage.region, options: options.values };
  state = { ...state, ...asked };
  history.replaceState({ entry }, "", address() ?? location.pathname);
  dismiss();
  busy(true);
  tell("Searching …");
  const patience = watchQueue(signal);
  try {
    if (server.indexes.length) await neighbours(asked, signal, focus);
    await query.placed;
    await reasons(asked, signal);
    if (!server.indexes.length) tell("Done.");
    look(query);
  } catch (error) {
    if (signal.aborted) return;
    tell("");
    report(error, () => search({ focus }));
  } finally {
    clearInterval(patience);
    if (running?.signal === signal) busy(false);
  }
}

async function neighbours(asked, signal, focus) {
  const answer = await findNeighbours(asked, signal);
  signal.throwIfAborted();
  state = { ...state, answer: { ...answer, asked }, recognition: null, classes: [] };
  shown = PAGE;
  keep();
  render();
  const found = answer.results[0].neighbours.length;
  tell(`${plural(found, "neighbour")} in ${seconds(took(answer))}.`);
  if (focus) $("results").focus({ preventScroll: true });
}

// What else the server can say of the photo, beside its neighbours.
async function reasons(asked, signal) {
  const { query } = asked;
  if (!query.file && !query.size) return;
  const landmark = server.recognize
    ? recognise(asked, signal).then((answer) => update({ recognition: answer.results[0] }, signal))
    : null;
  const classes = modelsFor("cls").map(async (model) => ({ model, ...(await classify(asked, model, signal)).results[0] }));
  await Promise.all([landmark, Promise.all(classes).then((all) => update({ classes: all }, signal))]);
}

function update(news, signal) {
  if (signal.aborted) return;
  state = { ...state, ...news };
  keep();
  render();
}

// The boxes of a photo do not depend on its region: they are asked for once, after what is more urgent.
async function look(query) {
  const model = detector();
  if (!model || !query.size || query.looked) return;
  query.looked = true;
  looking = new AbortController();
  const { signal } = looking;
  try {
    const detections = await detect(query, model, signal);
    update({ detected: detections.sort((one, other) => other.score - one.score) }, signal);
  } catch (error) {
    query.looked = false;
    if (!signal.aborted) report(error, () => look(query));
  }
}

function watchQueue(signal) {
  return setInterval(async () => {
    const { queue } = await info().catch(() => ({}));
    if (!queue || signal.aborted || !document.body.classList.contains("busy")) return;
    tell(`Still searching: ${plural(queue.images, "image")} ${queue.images === 1 ? "waits" : "wait"} on the server.`);
  }, PATIENCE);
}

function busy(on) {
  document.body.classList.toggle("busy", on);
  $("answers").setAttribute("aria-busy", String(on));
}

const took = ({ took: stages }) => Object.values(stages).reduce((sum, value) => sum + value, 0);

// --- showing ---

function render() {
  const { query, answer, recognition, classes } = state;
  show($("welcome"), false);
  show($("work"), true);
  name();
  const hits = answer?.results[0].neighbours ?? [];
  if (answer !== drawn.answer || shown !== drawn.shown) renderResults(hits);
  renderVotes(recognition?.neighbours ?? []);
  renderLandmark(recognition, answer?.results[0].votes, new Map(hits.map((hit) => [hit.id, hit.rank])));
  renderClasses(classes, server.indexes.length ? 3 : 10);
  if (state.detected !== drawn.detected) boxes();
  drawn = { answer, shown, detected: state.detected };
  document.title = `${query.name} · landmark-onnx`;
}

function name() {
  const { query } = state;
  if (query.file) {
    const size = query.size ? ` · ${query.size.width} × ${query.size.height}` : "";
    $("query-name").replaceChildren(el("b", {}, query.name), `${size} · an uploaded photo has no address to share`);
  } else if (query.size || !query.placed) {
    const link = query.size ? large(query.index, query.id) : "";
    $("query-name").replaceChildren(el("b", {}, query.name), ` · ${query.index} `, link);
  }
}

function renderResults(hits) {
  const { answer } = state;
  const index = answer?.index.name;
  const addressOf = ({ id }) => writeAddress({ ...answer.asked.options, index, id });
  renderHits(hits.slice(0, shown), { index, pick: ({ id }) => bringIndexed({ index, id }), addressOf });
  show($("results-head"), Boolean(answer));
  if (answer) $("results").textContent = plural(hits.length, "neighbour");
  $("asked").textContent = answer ? askedInWords(answer) : "";
  show($("results-actions"), hits.length > 0);
  show($("share"), address() !== null);
  show($("empty"), Boolean(answer) && !hits.length);
  $("empty").textContent = answer?.index.rows ? "Nothing in the index is a neighbour of it." : `The index ${index} is empty: images get into it by “landmark-onnx index add”.`;
  show($("more"), hits.length > shown);
  $("more").textContent = `Show ${Math.min(PAGE, hits.length - shown)} more of ${count(hits.length)}`;
}

function askedInWords({ asked, index }) {
  const { query, region } = asked;
  const part = region ? `region ${written(region)} of ` : "";
  const what = `${part}${query.name} in ${index.name}`;
  return `${what} · ${optionsInWords(asked.options)} · ${stateOf(index)} · ${seconds(took(state.answer))}`;
}

const stateOf = ({ generation, rows }) => `generation ${count(generation)} · ${plural(rows, "image")}`;

function boxes() {
  const { detected, query } = state;
  show($("objects"), detected !== null);
  stage.setBoxes([]);
  if (!detected) return;
  const least = Number($("boxes-score").value);
  const sure = detected.filter((box) => box.score >= least);
  const numbered = sure.map((box, at) => ({ ...box, number: at + 1, name: box.name ?? `class ${box.category_id}` }));
  const point = (box) => query.size && stage.setBoxes($("boxes-on").checked ? numbered : [], box?.number);
  point(null);
  $("objects-count").textContent = plural(sure.length, "detection");
  renderBoxes(numbered, detected.length - sure.length, { use: useBox, point });
}

function useBox({ bbox: [x, y, width, height] }) {
  stage.setRegion({ x, y, width, height });
  search();
}

function regionChanged() {
  const { size, region } = stage;
  const box = region ?? { x: 0, y: 0, ...size };
  for (const side of ["x", "y", "width", "height"]) $(`region-${side}`).value = box[side];
  $("region-x").max = $("region-width").max = size.width;
  $("region-y").max = $("region-height").max = size.height;
  $("whole").disabled = region === null;
}

// --- addresses, back and forward ---

function fromAddress() {
  const { index, id, crop, ...rest } = readAddress(location.search);
  options.set({ ...rest, index });
  if (index && !server.indexes.some(({ name }) => name === index)) {
    welcome();
    mention("There is no such index", `The address asks for ${index}; see below what there is.`);
    return;
  }
  if (id === undefined || !options.index) {
    state = { ...state, query: null };
    welcome();
    return;
  }
  entry ??= `${performance.timeOrigin}-first`;
  history.replaceState({ entry }, "");
  bringIndexed({ index: index ?? options.index, id, crop }, { push: false });
}

async function returnTo(event) {
  running?.abort();
  looking?.abort();
  busy(false);
  dismiss();
  entry = event.state?.entry ?? null;
  const found = entries.get(entry);
  if (!found?.query) {
    fromAddress();
    if (event.state?.entry && !location.search) mention("This photo is gone", "An uploaded photo has no address: choose it again.");
    return;
  }
  state = found;
  options.set(state.options);
  shown = PAGE;
  render();
  await place(found.query, null);
  if (state !== found) return;
  boxes();
  if (!found.answer && !found.classes.length) return search();
  tell("As it was found before.");
  compareIndex();
}

// Says so if the index is not what it was when the results came.
async function compareIndex() {
  const { answer } = state;
  if (!answer || document.hidden) return;
  const now = (await info().catch(() => server)).indexes.find(({ name }) => name === answer.index.name);
  if (state.answer !== answer || !now || stateOf(now) === stateOf(answer.index)) return;
  const detail = `These results are of ${stateOf(answer.index)}; it is at ${stateOf(now)} now.`;
  mention("The index has changed since", detail, button("Search again", () => search()));
}

// --- what people do ---

function exported(kind) {
  const { answer, recognition } = state;
  if (!answer) return;
  const { index, asked, ...rest } = answer;
  const options = optionsInWords(asked.options);
  if (kind === "csv") {
    const text = csv(rest.results[0].neighbours, { index: index.name, generation: index.generation, options });
    save(`${index.name}.csv`, text, "text/csv");
  } else {
    const text = JSON.stringify({ index, ...rest, options: asked.options, recognition }, null, 1);
    save(`${index.name}.json`, text, "application/json");
  }
  tell(`${kind.toUpperCase()} of ${plural(rest.results[0].neighbours.length, "neighbour")} is saved.`);
}

function toggleOptions() {
  const open = $("options").hidden;
  show($("options"), open);
  $("options-button").setAttribute("aria-expanded", String(open));
  (open ? $("options").querySelector("input, select") : $("options-button")).focus();
}

function walk(step) {
  const links = [...$("hits").querySelectorAll(".pick")];
  const at = links.indexOf(document.activeElement);
  links[Math.min(Math.max(at + step, 0), links.length - 1)]?.focus();
}

const choose = () => $("file").click();

function numbersGiven(event) {
  event.preventDefault();
  if (!stage.size || !$("region-form").reportValidity()) return;
  const [x, y, width, height] = ["x", "y", "width", "height"].map((side) => Number($(`region-${side}`).value));
  stage.setRegion(between({ x, y }, { x: x + width, y: y + height }, stage.size));
  search();
}

function listenToFiles() {
  for (const field of [$("file"), $("camera")]) {
    field.onchange = () => {
      bring(field.files[0]);
      field.value = "";
    };
  }
  for (const each of document.querySelectorAll(".choose")) each.onclick = choose;
  for (const each of document.querySelectorAll(".camera")) each.onclick = () => $("camera").click();
  document.onpaste = (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    bring(event.clipboardData.files[0]);
  };
  document.ondragover = (event) => {
    event.preventDefault();
    show($("veil"), event.dataTransfer.types.includes("Files"));
  };
  document.ondragleave = (event) => event.relatedTarget ?? show($("veil"), false);
  document.ondrop = (event) => {
    event.preventDefault();
    show($("veil"), false);
    bring(event.dataTransfer.files[0]);
  };
}

function listenToButtons() {
  const clicked = (id, act) => ($(id).onclick = act);
  clicked("skip", (event) => {
    event.preventDefault();
    $(state.answer ? "results" : "status").focus();
  });
  clicked("options-button", toggleOptions);
  clicked("keys-button", () => $("keys").showModal());
  clicked("whole", () => stage.clear());
  clicked("smaller", () => stage.resize(1 / 1.1));
  clicked("larger", () => stage.resize(1.1));
  clicked("export-csv", () => exported("csv"));
  clicked("export-json", () => exported("json"));
  clicked("share", async () => tell((await copy(location.href)) ? "The address is copied." : location.href));
  clicked("more", () => {
    shown += PAGE;
    render();
    $("hits").querySelectorAll(".pick")[shown - PAGE]?.focus();
  });
  $("by-id").onsubmit = (event) => {
    event.preventDefault();
    bringIndexed({ index: options.index, id: $("id").value });
  };
  $("region-form").onsubmit = numbersGiven;
  $("boxes-on").onchange = $("boxes-score").onchange = boxes;
}

listenToFiles();
listenToButtons();
listen({
  "/": choose,
  c: () => stage.size && stage.begin(),
  j: () => walk(1),
  k: () => walk(-1),
  o: () => server.indexes.length && toggleOptions(),
  e: () => exported("csv"),
  "?": () => $("keys").showModal(),
});
addEventListener("popstate", returnTo);
document.addEventListener("visibilitychange", compareIndex);
begin();
