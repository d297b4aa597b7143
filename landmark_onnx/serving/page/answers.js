// Neighbours, landmarks, classes and boxes as the server gave them.

import { hasKey, loadPicture, pictureAddress, pictureBlob, releasePictures } from "./api.js";
import { $, el, icon, percent, plural, score, show } from "./dom.js";

export const PAGE = 20; // cards at first, and with each "more"
const SHOWN_VOTES = 5;

// hits: in rank order. pick(hit): searches by it. addressOf(hit): where that search is.
export function renderHits(hits, how) {
  const list = $("hits");
  releasePictures(list);
  list.replaceChildren(...hits.map((hit) => card(hit, how)));
}

// Onto the cards that are there: a reader may be among them.
export function renderVotes(neighbours) {
  const votes = new Map(neighbours.map(({ id, vote }) => [id, vote]));
  for (const caption of $("hits").querySelectorAll("figcaption")) {
    const id = caption.querySelector(".id").textContent;
    caption.querySelector(".vote")?.remove();
    if (votes.has(id)) caption.append(el("span", { class: "vote" }, `vote ${score(votes.get(id))}`));
  }
}

function card(hit, { index, pick, addressOf }) {
  const picked = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    pick(hit);
  };
  const caption = el(
    "figcaption",
    {},
    `${hit.rank}. `,
    el("b", {}, score(hit.score)),
    hit.landmark ? el("i", {}, hit.landmark) : null,
    el("span", { class: "id" }, hit.id),
  );
  const figure = el("figure", {}, el("div", {}, thumbnail(index, hit.id)), caption);
  const link = el("a", { class: "pick", href: addressOf(hit), title: "Search by this image", onclick: picked }, figure);
  return el("li", {}, link, large(index, hit.id));
}

function thumbnail(index, id) {
  const image = el("img", { alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "missing" }, "no picture")), { once: true });
  loadPicture(image, index, id, 180);
  return image;
}

export function large(index, id) {
  const link = el("a", {
    class: "large",
    href: pictureAddress(index, id, 2048),
    target: "_blank",
    rel: "noopener",
    title: "Open the picture",
    "aria-label": `Open the picture of ${id}`,
  });
  link.append(icon("open"));
  if (hasKey()) link.onclick = fetchLarge;
  return link;
}

async function fetchLarge(event) {
  event.preventDefault();
  const tab = open(); // after an await it would be a popup, which browsers stop
  try {
    tab.opener = null;
    tab.location = await pictureBlob(event.currentTarget.href, AbortSignal.timeout(60_000));
  } catch {
    tab?.close();
  }
}

// recognition: of /v1/recognize, or null. votes: of /v1/search, or undefined. ranks: id -> rank of a neighbour.
export function renderLandmark(recognition, votes, ranks) {
  const best = recognition ? recognition.landmark : votes?.[0]?.landmark;
  const sure = recognition ? recognition.score : votes?.[0]?.score;
  const vetoes = recognition?.no_landmark ?? [];
  const voted = recognition ? recognition.labels || recognition.candidates.length || vetoes.length : votes?.length;
  show($("landmark"), Boolean(voted));
  if ($("landmark").hidden) return;
  $("landmark").classList.toggle("none", !best);
  $("landmark-kind").textContent = recognition ? "Landmark" : "Most votes of the neighbours";
  $("landmark-name").textContent = best ?? "No landmark";
  $("landmark-score").textContent = best ? `score ${score(sure)}` : vetoes.length ? vetoText(vetoes[0]) : "nothing voted";
  $("why-body").replaceChildren(...(recognition ? reasons(recognition, ranks) : [sums(votes)]));
}

const vetoText = ({ rule, area }) => `rule “${rule}” holds: ${percent(area)} of the photo`;

function reasons({ candidates, neighbours, classes, no_landmark: vetoes, labels }, ranks) {
  const ruled = vetoes.map((veto) => {
    const boxes = veto.boxes.map((box) => `${box.name ?? "?"} ${score(box.score)}`).join(", ");
    return el("p", { class: "veto" }, `Vetoed: ${vetoText(veto)} is under ${boxes}.`);
  });
  const near = neighbours.map((vote) => [
    ranks.has(vote.id) ? `neighbour ${ranks.get(vote.id)}` : "neighbour",
    vote.id,
    vote.landmark ?? "unlabelled",
    score(vote.vote),
  ]);
  const said = classes.slice(0, SHOWN_VOTES).map((vote) => [vote.model, `class ${vote.index}`, vote.landmark ?? "unnamed", score(vote.vote)]);
  return [
    ...ruled,
    candidates.length ? sums(candidates) : el("p", {}, "Nothing voted for a landmark."),
    near.length + said.length ? table("Who voted", ["voter", "image or class", "landmark", "vote"], [...near, ...said], 1) : null,
    labels ? el("p", { class: "quiet" }, `Landmarks of the images: ${labels}`) : null,
  ].filter(Boolean);
}

function sums(candidates) {
  const split = candidates.some((each) => each.classifiers !== undefined);
  const head = split ? ["landmark", "neighbours", "classifiers", "sum"] : ["landmark", "sum"];
  const rows = candidates
    .slice(0, SHOWN_VOTES)
    .map((each) => [each.landmark, ...(split ? [score(each.neighbours), score(each.classifiers)] : []), score(each.score)]);
  return table("Votes", head, rows, split ? 3 : 1);
}

// The last `numbers` columns are numbers.
function table(title, head, rows, numbers) {
  const kind = (at) => (at >= head.length - numbers ? "number" : null);
  return el(
    "div",
    { class: "scroll", tabIndex: 0, role: "region", "aria-label": title },
    el(
      "table",
      {},
      el("caption", {}, title),
      el("thead", {}, el("tr", {}, ...head.map((text, at) => el("th", { scope: "col", class: kind(at) }, text)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((text, at) => el("td", { class: kind(at) }, text))))),
    ),
  );
}

// answers: [{model, labels}], one for each classifier. most: how many classes of each.
export function renderClasses(answers, most) {
  show($("classes"), answers.length > 0);
  $("classes-body").replaceChildren(
    ...answers.map(({ model, labels }) =>
      el("div", { class: "classifier" }, el("h3", {}, model), el("ol", {}, ...labels.slice(0, most).map(label))),
    ),
  );
}

function label({ index, name, score: sure }) {
  const bar = el("meter", { min: 0, max: 1, value: sure, "aria-hidden": "true" });
  return el("li", {}, el("span", { class: "name" }, name ?? `class ${index}`), bar, el("b", {}, score(sure)));
}

// boxes: numbered, best first. use(box): makes it the region. point(box): marks it on the photo, null for none.
export function renderBoxes(boxes, hidden, { use, point }) {
  $("boxes-none").textContent = boxes.length
    ? ""
    : hidden
      ? `${plural(hidden, "box", "boxes")} below this score.`
      : "Nothing was detected.";
  $("boxes-body").replaceChildren(
    ...boxes.map((box) =>
      el(
        "tr",
        { onpointerenter: () => point(box), onpointerleave: () => point(null) },
        el("td", { class: "number" }, String(box.number)),
        el("td", {}, box.name),
        el("td", { class: "number" }, score(box.score)),
        el(
          "td",
          {},
          el(
            "button",
            { type: "button", class: "small", onclick: () => use(box), onfocus: () => point(box), onblur: () => point(null), "aria-label": `Use detection ${box.number}, ${box.name}` },
            "Use",
          ),
        ),
      ),
    ),
  );
  show($("boxes-table"), boxes.length > 0);
}
