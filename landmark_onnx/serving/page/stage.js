// The query photo with its region and boxes. Coordinates are of the photo as it is shown upright.

import { $, el, score, svg } from "./dom.js";
import { between, fitted, inside, isWhole, moved, scaled, stretched, whole, written } from "./region.js";

const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const DRAGGED = 4; // CSS pixels: less is a tap
const STEP = 0.01; // of the photo's side, for a key
const SCALE = 1.05;

// tell(words): for the status line. changed(): the region has another place. released(): it is to be searched.
export class Stage {
  constructor({ tell, changed, released }) {
    Object.assign(this, { tell, changed, released });
    this.size = null;
    this.region = null;
    this.corner = null;
    this.drag = null;
    this.stage = $("stage");
    this.image = $("photo");
    this.layer = $("layer");
    this.frame = $("region");
    this.frame.append(...HANDLES.map((name) => el("div", { class: `handle ${name}`, "data-handle": name })));
    this.stage.onpointerdown = (event) => this.#down(event);
    this.stage.onpointermove = (event) => this.#move(event);
    this.stage.onpointerup = (event) => this.#up(event);
    this.stage.onpointercancel = () => this.#cancel();
    this.frame.onkeydown = (event) => this.#key(event);
    new ResizeObserver(() => this.#rescale()).observe(this.stage);
  }

  // Shows a photo that is loaded already; region: null for all of it.
  show(size, region) {
    this.size = size;
    this.stage.style.setProperty("--ratio", size.width / size.height);
    this.layer.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    this.corner = null;
    this.setRegion(region);
    this.#rescale();
  }

  // No photo, for now.
  reset() {
    this.size = this.region = this.corner = this.drag = null;
    this.setBoxes([]);
    $("dim").setAttribute("d", "");
    this.frame.classList.remove("cut");
    $("corner").hidden = true;
  }

  setRegion(region) {
    const box = region && fitted(region, this.size);
    this.region = box && !isWhole(box, this.size) ? box : null;
    this.#draw(this.region);
    this.changed();
  }

  // Something to begin with for those who use keys.
  begin() {
    if (!this.region) this.setRegion(scaled(whole(this.size), 0.6));
    this.frame.focus();
  }

  clear() {
    this.corner = null;
    const had = this.region !== null;
    this.setRegion(null);
    if (had) this.released();
  }

  resize(factor) {
    this.setRegion(scaled(this.region ?? whole(this.size), factor));
  }

  // boxes: [{number, name, score, bbox}]
  setBoxes(boxes, chosen) {
    $("boxes").replaceChildren(...boxes.map((box) => this.#box(box, box.number === chosen)));
  }

  #box({ number, name, score: sure, bbox: [x, y, width, height] }, chosen) {
    const label = width > this.size.width / 4 ? `${name} ${score(sure).slice(0, 4)}` : "";
    const tag = svg(
      "g",
      { class: "tag" },
      svg("rect", { width: 10 + 8 * String(number).length, height: 18 }),
      svg("text", { x: 5, y: 13.5 }, String(number)),
      svg("text", { x: 16 + 8 * String(number).length, y: 13.5, class: "name" }, label),
    );
    return svg(
      "g",
      { class: chosen ? "box chosen" : "box" },
      svg("rect", { class: "edge", x, y, width, height }),
      svg("g", { transform: `translate(${x} ${y})` }, tag),
    );
  }

  #rescale() {
    if (this.size) this.layer.style.setProperty("--unit", this.size.width / (this.stage.clientWidth || 1));
  }

  #draw(region) {
    const { width, height } = this.size;
    const box = region ?? whole(this.size);
    const hole = `M${box.x} ${box.y}h${box.width}v${box.height}h${-box.width}z`;
    $("dim").setAttribute("d", region ? `M0 0h${width}v${height}h${-width}z${hole}` : "");
    this.frame.classList.toggle("cut", region !== null);
    const places = { left: box.x / width, top: box.y / height, width: box.width / width, height: box.height / height };
    for (const [side, share] of Object.entries(places)) this.frame.style[side] = `${share * 100}%`;
    this.frame.setAttribute("aria-label", `Region: ${region ? written(region) : "the whole photo"}`);
    const { corner } = this;
    const dot = $("corner");
    dot.hidden = !corner;
    if (!corner) return;
    dot.style.left = `${(corner.x / width) * 100}%`;
    dot.style.top = `${(corner.y / height) * 100}%`;
  }

  #point(event) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return {
      x: ((event.clientX - left) / width) * this.size.width,
      y: ((event.clientY - top) / height) * this.size.height,
    };
  }

  #down(event) {
    if (!this.size || event.button !== 0 || this.drag) return;
    const from = this.#point(event);
    const { handle } = event.target.dataset;
    const within = this.region && (handle || inside(this.region, from));
    this.drag = { from, handle, start: within ? this.region : null, event, far: false, box: this.region };
    // A finger outside the region scrolls the page, and a tap is one of two corners.
    if (event.pointerType === "touch" && !within) this.drag.tapOnly = true;
    else this.stage.setPointerCapture(event.pointerId);
    if (event.pointerType !== "touch") event.preventDefault();
    this.frame.focus({ preventScroll: true });
  }

  #move(event) {
    const { drag } = this;
    if (!drag || event.pointerId !== drag.event.pointerId) return;
    drag.far ||= Math.hypot(event.clientX - drag.event.clientX, event.clientY - drag.event.clientY) >= DRAGGED;
    if (!drag.far || drag.tapOnly) return;
    const to = this.#point(event);
    const [dx, dy] = [to.x - drag.from.x, to.y - drag.from.y];
    if (drag.handle) drag.box = stretched(drag.start, drag.handle, dx, dy, this.size);
    else if (drag.start) drag.box = moved(drag.start, dx, dy);
    else drag.box = between(drag.from, to, this.size);
    this.corner = null;
    this.#draw(fitted(drag.box, this.size));
  }

  #up(event) {
    const { drag } = this;
    if (!drag || event.pointerId !== drag.event.pointerId) return;
    this.drag = null;
    if (drag.far && !drag.tapOnly) {
      this.setRegion(drag.box);
      this.released();
    } else if (!drag.far && !drag.handle) this.#tap(this.#point(event));
  }

  #cancel() {
    this.drag = null;
    if (this.size) this.#draw(this.region);
  }

  #tap(point) {
    if (!this.corner) {
      this.corner = point;
      this.#draw(this.region);
      this.tell("One corner is set: choose the opposite one, or drag. Escape: the whole photo.");
      return;
    }
    const box = between(this.corner, point, this.size);
    this.corner = null;
    this.setRegion(box);
    this.released();
  }

  #key(event) {
    if (!this.size || event.ctrlKey || event.metaKey || event.altKey) return;
    const box = this.#keyed(event);
    if (event.key === "Enter") this.released();
    else if (event.key === "Escape") this.clear();
    else if (box) {
      this.setRegion(box);
      this.tell("Enter searches by this region.");
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #keyed({ key, shiftKey }) {
    const box = this.region ?? whole(this.size);
    if (key === "+" || key === "=") return scaled(box, SCALE);
    if (key === "-" || key === "_") return scaled(box, 1 / SCALE);
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key] ?? [0, 0];
    if (!dx && !dy) return null;
    const step = (side) => Math.max(1, Math.round(side * STEP));
    const [far, high] = [dx * step(this.size.width), dy * step(this.size.height)];
    return shiftKey ? stretched(box, "se", far, high, this.size) : moved(box, far, high);
  }
}
