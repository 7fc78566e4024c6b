// The timeline under the player: a row for each emotion, strips for what is missing, a playhead.

import { clock, mark, percent, segments } from "./segments.js";

const SVG = "http://www.w3.org/2000/svg";
const STEPS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const FULL = 0.92; // of a row's height is 100 %
const PAGE = 5; // segments
const ROUNDING = 0.005; // seconds that a player may come out short of where it is sent
const STRIPS = [
  ["no face", (each) => each.face === false],
  ["no speech", (each) => each.speech === false],
  ["no answer", (each) => each.probabilities === null],
];

function element(kind, attributes, parent, text) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent.append(made);
  if (text !== undefined) made.textContent = text;
  return made;
}

export class Timeline {
  // `jump` is called with a second, `play` to play or pause, `moved` with the segment that is chosen.
  constructor(root, { jump, play, moved }) {
    this.names = root.querySelector(".names");
    this.track = root.querySelector(".track");
    this.axis = root.querySelector(".axis");
    this.jump = jump;
    this.moved = moved;
    this.cut = [];
    this.track.addEventListener("keydown", (event) => this.#key(event, play));
    this.track.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.track.setPointerCapture(event.pointerId);
      this.#point(event);
    });
    this.track.addEventListener("pointermove", (event) => {
      if (this.track.hasPointerCapture(event.pointerId)) this.#point(event);
    });
    new ResizeObserver(() => this.#drawAxis()).observe(this.track);
  }

  // Windows of a prediction, from `begin` to `end` seconds, in the colours of its emotions.
  show(windows, begin, end, colours) {
    this.begin = begin;
    this.end = Math.max(end, begin + 0.1);
    this.cut = segments(windows, begin, end);
    this.emotions = Object.keys(colours);
    this.strips = STRIPS.filter(([, missing]) => this.cut.some(missing));
    this.chosen = -1;
    this.#drawNames();
    this.#drawRows(colours);
    this.#drawAxis();
    this.track.setAttribute("aria-valuemin", begin.toFixed(1));
    this.track.setAttribute("aria-valuemax", this.end.toFixed(1));
    this.at(begin);
  }

  // Move the playhead, and choose the segment it is in.
  at(second) {
    this.now = Math.min(Math.max(second, this.begin), this.end);
    this.playhead.style.left = `${this.#share(this.now)}%`;
    const found = this.cut.findIndex((each) => this.now + ROUNDING < each.end);
    this.#choose(found < 0 ? this.cut.length - 1 : found);
  }

  #share(second) {
    return (100 * (second - this.begin)) / (this.end - this.begin);
  }

  #choose(place) {
    if (place === this.chosen || place < 0) return;
    this.chosen = place;
    const each = this.cut[place];
    this.frame.style.left = `${this.#share(each.start)}%`;
    this.frame.style.width = `${this.#share(each.end) - this.#share(each.start)}%`;
    this.emotions.forEach((emotion, row) => {
      const name = this.names.children[row];
      name.classList.toggle("best", emotion === each.emotion);
      name.lastChild.textContent = each.probabilities ? percent(each.probabilities[emotion]) : "–";
    });
    const said = this.describe(each);
    this.track.setAttribute("aria-valuenow", each.start.toFixed(1));
    this.track.setAttribute("aria-valuetext", said);
    this.moved(each, said);
  }

  describe(each) {
    const span = `${clock(each.start, true)} to ${clock(each.end, true)}`;
    const answer = each.emotion ? `${each.emotion} ${percent(each.probabilities[each.emotion])}` : "";
    return `${span}: ${[answer, mark(each)].filter(Boolean).join(", ")}`;
  }

  #drawNames() {
    this.names.replaceChildren();
    for (const emotion of this.emotions) {
      const row = document.createElement("div");
      const name = document.createElement("span");
      const value = document.createElement("span");
      name.textContent = emotion;
      value.className = "value";
      row.append(name, value);
      this.names.append(row);
    }
    for (const [name] of this.strips) {
      const row = document.createElement("div");
      row.className = "strip";
      row.textContent = name;
      this.names.append(row);
    }
  }

  #drawRows(colours) {
    const rows = this.emotions.length + this.strips.length;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `${this.begin} 0 ${this.end - this.begin} ${rows}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const thin = { "vector-effect": "non-scaling-stroke" };
    for (let row = 1; row < rows; row++) {
      element("line", { class: "grid", x1: this.begin, x2: this.end, y1: row, y2: row, ...thin }, svg);
    }
    this.emotions.forEach((emotion, row) => {
      const paths = { faint: "", strong: "", edge: "" };
      for (const each of this.cut) {
        if (!each.probabilities) continue;
        const top = row + 1 - FULL * each.probabilities[emotion];
        const box = `M${each.start} ${row + 1}V${top}H${each.end}V${row + 1}Z`;
        paths[emotion === each.emotion ? "strong" : "faint"] += box;
        paths.edge += `M${each.start} ${top}H${each.end}`;
      }
      element("path", { class: "faint", d: paths.faint, fill: colours[emotion] }, svg);
      element("path", { class: "strong", d: paths.strong, fill: colours[emotion] }, svg);
      element("path", { class: "edge", d: paths.edge, ...thin }, svg);
    });
    this.strips.forEach(([, missing], place) => {
      const row = this.emotions.length + place;
      const boxes = this.cut.filter(missing).map((each) => `M${each.start} ${row + 0.25}H${each.end}V${row + 0.75}H${each.start}Z`);
      element("path", { class: "strip", d: boxes.join("") }, svg);
    });
    this.frame = document.createElement("div");
    this.frame.className = "chosen";
    this.playhead = document.createElement("div");
    this.playhead.className = "playhead";
    this.track.replaceChildren(svg, this.frame, this.playhead);
  }

  #drawAxis() {
    if (!this.cut.length) return;
    const most = Math.max(2, this.track.clientWidth / 60);
    const length = this.end - this.begin;
    const step = STEPS.find((each) => length / each <= most) ?? 1800;
    this.axis.replaceChildren();
    for (let second = Math.ceil(this.begin / step) * step; second <= this.end; second += step) {
      const tick = document.createElement("span");
      const share = this.#share(second);
      tick.textContent = clock(second, step < 1);
      tick.style.left = `${share}%`;
      tick.className = share < 3 ? "first" : share > 94 ? "last" : "";
      this.axis.append(tick);
    }
  }

  #point(event) {
    const box = this.track.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    this.jump(this.begin + share * (this.end - this.begin));
  }

  #key(event, play) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.cut.length) return;
    const last = this.cut.length - 1;
    const places = {
      ArrowRight: this.chosen + 1,
      ArrowUp: this.chosen + 1,
      ArrowLeft: this.chosen - 1,
      ArrowDown: this.chosen - 1,
      PageUp: this.chosen + PAGE,
      PageDown: this.chosen - PAGE,
      Home: 0,
      End: last,
    };
    if (event.key in places) {
      const place = Math.min(Math.max(places[event.key], 0), last);
      this.jump(this.cut[place].start);
    } else if (event.key === "Enter" || event.key === " ") {
      play();
    } else {
      return;
    }
    event.preventDefault();
  }
}
