// Lines that move, a curve over tokens, and bars. Lines differ by their dashes as well as by colour.

import { el, svg, short } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 60;
const KEPT = 120; // samples: two minutes
const CLASSES = ["a", "b", "c", "d"];
const LEVEL_CLASSES = ["b", "c"]; // of Unsafe and Controversial

export class Chart {
  /** `names` of at most four lines; `show` writes a value. */
  constructor(title, names, show = short) {
    this.names = names;
    this.show = show;
    this.samples = [];
    this.drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", height: 90, role: "img", "aria-label": title });
    this.paths = names.map((_, n) => svg("path", { class: `line ${CLASSES[n]}` }));
    const grid = [0.5, HEIGHT / 2, HEIGHT - 0.5].map((y) => svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }));
    this.drawing.append(...grid, ...this.paths);
    this.top = el("span", {}, "");
    this.values = names.map(() => el("span", {}, "–"));
    const legend = names.map((name, n) => el("li", {}, sample(`line ${CLASSES[n]}`), `${name} `, this.values[n]));
    this.element = el("div", { class: "panel chart" }, el("h3", {}, title, this.top), this.drawing, el("ul", { class: "legend" }, legend));
  }

  /** One value a line; null where there is none. */
  add(values) {
    this.samples.push(values);
    if (this.samples.length > KEPT) this.samples.shift();
    const highest = Math.max(...this.samples.flat().map((value) => value ?? 0));
    const top = highest > 0 ? nice(highest) : 1;
    this.top.textContent = `up to ${this.show(top)}`;
    this.paths.forEach((path, n) => path.setAttribute("d", this.path(n, top)));
    values.forEach((value, n) => { this.values[n].textContent = value === null ? "–" : this.show(value); });
    const said = this.names.map((name, n) => `${name} ${values[n] === null ? "unknown" : this.show(values[n])}`);
    this.drawing.setAttribute("aria-label", `${this.element.querySelector("h3").firstChild.data}: ${said.join(", ")}`);
  }

  path(n, top) {
    const start = KEPT - this.samples.length;
    let drawn = "";
    let isDown = false;
    this.samples.forEach((values, number) => {
      if (values[n] === null) { isDown = false; return; }
      const x = ((start + number) * WIDTH) / (KEPT - 1);
      const y = HEIGHT - 1 - (values[n] / top) * (HEIGHT - 2);
      drawn += `${isDown ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      isDown = true;
    });
    return drawn;
  }
}

const sample = (name) => svg("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" }, svg("line", { class: name, x1: 0, x2: 30, y1: 5, y2: 5 }));

function nice(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * unit).find((step) => step >= value);
}

/**
 * Probabilities over tokens. `lines`: [name, values]; `marks`: [token, what is said of it]; the first token is number
 * `first` + 1; `pick` is told which is pointed at.
 */
export function curve(lines, marks, first, pick) {
  const count = lines[0][1].length;
  const place = (n) => (count > 1 ? (n * WIDTH) / (count - 1) : 0);
  const path = (values) => values.map((value, n) => `${n ? "L" : "M"}${place(n).toFixed(1)} ${(HEIGHT - 1 - value * (HEIGHT - 2)).toFixed(1)}`).join("");
  const highest = (values) => values.reduce((best, value, n) => (value > values[best] ? n : best), 0);
  const said = [
    ...lines.map(([name, values]) => `${name} at most ${values[highest(values)].toFixed(2)}, at token ${first + highest(values) + 1}`),
    ...marks.map(([n, text]) => `${text}: token ${first + n + 1}`),
  ];
  const here = svg("line", { class: "here", x1: -9, x2: -9, y1: 0, y2: HEIGHT });
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", height: 110, role: "img", "aria-label": `Probabilities over ${count} tokens: ${said.join("; ")}` });
  for (const y of [0.5, HEIGHT / 2, HEIGHT - 0.5]) drawing.append(svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }));
  for (const [n] of marks) drawing.append(svg("line", { class: "mark", x1: place(n), x2: place(n), y1: 0, y2: HEIGHT }));
  lines.forEach(([, values], n) => drawing.append(svg("path", { class: `line ${LEVEL_CLASSES[n]}`, d: count > 1 ? path(values) : `${path(values)}h${WIDTH}` })));
  drawing.append(here);
  drawing.addEventListener("mousemove", (event) => {
    const box = drawing.getBoundingClientRect();
    pick(Math.round(((event.clientX - box.left) / box.width) * (count - 1)));
  });
  const move = (n) => { for (const name of ["x1", "x2"]) here.setAttribute(name, place(n).toFixed(1)); };
  const legend = [
    ...lines.map(([name], n) => el("li", {}, sample(`line ${LEVEL_CLASSES[n]}`), name)),
    ...marks.map(([n, text]) => el("li", {}, sample("mark"), `${text}, token ${first + n + 1}`)),
    el("li", {}, "0 at the bottom, 1 at the top"),
  ];
  return { element: el("div", { class: "curve" }, drawing, el("ul", { class: "legend" }, legend)), move };
}

/** A table of names and numbers, the highest first, with bars. */
export function bars(target, counts, heads, none) {
  const entries = Object.entries(counts).filter(([, count]) => count > 0).sort((one, other) => other[1] - one[1]);
  if (!entries.length) { target.replaceChildren(el("p", { class: "none" }, none)); return; }
  const most = entries[0][1];
  const rows = entries.map(([name, count]) => el("tr", {},
    el("td", {}, name), el("td", { class: "number" }, short(count)), el("td", { class: "bar" }, bar([["fill", 0, count / most]]))));
  const head = el("tr", {}, el("th", { scope: "col" }, heads[0]), el("th", { scope: "col", class: "number" }, heads[1]), el("td", {}));
  target.replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, rows)));
}

/** Parts of one length, each [class, start, end] within 0 and 1. */
export function bar(parts) {
  const drawn = parts.map(([name, start, end]) => svg("rect", { class: name, x: start * 100, width: Math.max(0, end - start) * 100, y: 0, height: 10 }));
  return svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", height: 10, "aria-hidden": "true" }, drawn);
}
