// One text of an answer, token by token: each by its risk, their curve, a replay, and all of it as a table.

import { el } from "./dom.js";
import { curve } from "./chart.js";

// At once on the page; of a longer text a part is chosen.
const PART = 2000;
const TICK_MILLISECONDS = 50;
const SPEEDS = [5, 20, 80, 320]; // tokens a second
const USUAL_SPEED = 20;
const HOW = "Point at a token, or reach the tokens by Tab and move with the arrow keys.";

/**
 * `tokens`: {start, end, text, level, unsafe, controversial, category}; a text that is not kept is null.
 * `withheld`: the first token that was not delivered, -1 where all were; `marks`: [token, what is said of it].
 */
export function tokenView({ name, tokens, withheld, marks }) {
  const box = el("div", { class: "token-view" });
  if (tokens.length <= PART) { box.append(...part(name, tokens, 0, withheld, marks)); return box; }
  const shown = el("div", {});
  const starts = Array.from({ length: Math.ceil(tokens.length / PART) }, (_, n) => n * PART);
  const chosen = el("select", {}, starts.map((start) => el("option", { value: start }, `${start + 1} to ${Math.min(start + PART, tokens.length)} of ${tokens.length}`)));
  const show = () => shown.replaceChildren(...part(name, tokens.slice(Number(chosen.value), Number(chosen.value) + PART), Number(chosen.value), withheld, marks));
  chosen.addEventListener("change", show);
  chosen.selectedIndex = marks.length ? Math.floor(marks[0][0] / PART) : 0;
  show();
  box.append(el("p", { class: "row" }, el("label", {}, "Tokens ", chosen)), shown);
  return box;
}

function part(name, tokens, first, withheld, marks) {
  const isWithheld = (n) => withheld >= 0 && first + n >= withheld;
  const near = marks.map(([n, said]) => [n - first, said]).filter(([n]) => n >= 0 && n < tokens.length);
  const detail = el("div", { class: "detail", "aria-live": "polite" }, HOW);
  const options = tokens.map((token, n) => el("span", {
    role: "option", id: `token-${name}-${first + n}`, "aria-selected": "false", "data-level": token.level, "data-withheld": isWithheld(n),
    "aria-label": spoken(token, first + n), "data-n": n,
  }, token.text === null ? "\u25AA" : token.text || "\u25E6"));
  const list = el("div", { class: "tokens", role: "listbox", tabindex: 0, "aria-label": `Tokens of ${name}`, "aria-orientation": "horizontal" }, options);
  for (const [n, said] of near) options[n].before(el("span", { class: "cut", role: "presentation", "aria-hidden": "true" }, said));
  const lines = [["Unsafe", tokens.map((token) => token.unsafe)], ["Controversial", tokens.map((token) => token.controversial)]];
  const drawn = curve(lines, near, first, (n) => { if (!replay.isOn()) select(n); });

  let at = -1;
  function select(n) {
    if (n < 0 || n >= tokens.length || n === at) return;
    options[at]?.setAttribute("aria-selected", "false");
    at = n;
    options[n].setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", options[n].id);
    drawn.move(n);
    detail.replaceChildren(...described(tokens[n], first + n, isWithheld(n)));
  }
  const replay = player(options, detail, () => at, select);
  list.addEventListener("mouseover", (event) => { if (event.target.dataset.n && !replay.isOn()) select(Number(event.target.dataset.n)); });
  list.addEventListener("focus", () => select(Math.max(at, 0)));
  list.addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    replay.stop();
    select(Math.min(Math.max(to, 0), tokens.length - 1));
    options[at].scrollIntoView({ block: "nearest" });
  });
  return [list, detail, replay.element, el("h4", {}, "Risk, token by token"), drawn.element, table(name, tokens, first, isWithheld)];
}

/** Shows the tokens one after the other, as they were judged, from the one that is selected. */
function player(options, detail, at, select) {
  let timer = null;
  let shown = 0;
  const speed = el("select", {}, SPEEDS.map((one) => el("option", { value: one, selected: one === USUAL_SPEED }, `${one} tokens a second`)));
  const button = el("button", { type: "button", onclick: () => (timer === null ? play() : pause()) }, "Play");
  const element = el("p", { class: "row" }, button, el("label", {}, "Speed ", speed));

  function play() {
    shown = at() >= options.length - 1 ? 0 : Math.max(at(), 0);
    options.forEach((option, n) => { option.hidden = n > shown; });
    detail.setAttribute("aria-live", "off"); // nobody wants to hear each of them
    button.textContent = "Pause";
    timer = setInterval(step, TICK_MILLISECONDS);
  }
  function step() {
    if (!options[0].isConnected) { pause(); return; }
    const before = Math.floor(shown);
    shown = Math.min(shown + (Number(speed.value) * TICK_MILLISECONDS) / 1000, options.length - 1);
    for (let n = before; n <= shown; n += 1) options[n].hidden = false;
    select(Math.floor(shown));
    options[Math.floor(shown)].scrollIntoView({ block: "nearest" });
    if (shown >= options.length - 1) pause();
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
    detail.setAttribute("aria-live", "polite");
  }
  function stop() {
    pause();
    for (const option of options) option.hidden = false;
  }
  return { element, stop, isOn: () => timer !== null };
}

function table(name, tokens, first, isWithheld) {
  const keepsText = tokens.some((token) => token.text !== null);
  const heads = ["Token", "Characters", ...(keepsText ? ["Text"] : []), "Level", "Unsafe", "Controversial", "Category", "Delivered"];
  const box = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Table of the tokens of ${name}` });
  const fill = () => {
    const rows = tokens.map((token, n) => el("tr", {},
      [first + n + 1, `${token.start} to ${token.end}`, ...(keepsText ? [JSON.stringify(token.text ?? "")] : []), token.level,
        token.unsafe.toFixed(4), token.controversial.toFixed(4), token.category ?? "", isWithheld(n) ? "no" : "yes"].map((value) => el("td", {}, String(value)))));
    box.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, rows)));
  };
  return el("details", { ontoggle: (event) => { if (event.target.open && !box.firstChild) fill(); } }, el("summary", {}, "The same as a table"), box);
}

const inWords = (token) => `${token.level}, Unsafe ${token.unsafe.toFixed(2)}, Controversial ${token.controversial.toFixed(2)}${token.category ? `, ${token.category}` : ""}`;
const spoken = (token, n) => `${token.text === null ? `Token ${n + 1}, characters ${token.start} to ${token.end}` : token.text.trim() || "space"}: ${inWords(token)}`;

function described(token, n, isWithheld) {
  const text = token.text === null ? [] : [": ", el("strong", {}, JSON.stringify(token.text))];
  return [
    el("div", {}, `Token ${n + 1}, characters ${token.start} to ${token.end}`, ...text),
    el("div", {}, el("span", { class: "level", "data-level": token.level }, token.level), inWords(token).slice(token.level.length), isWithheld ? "; not delivered" : ""),
  ];
}
