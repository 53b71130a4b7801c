// Elements from text, and questions to this server. Whatever comes in is put in as text, never as markup.

const KEY = "weir-operator-key";
const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with attributes, event handlers (onclick: ...) and children; strings become text. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function say(text, state = "") {
  const status = byId("status");
  status.dataset.state = state;
  if (status.textContent !== text) status.textContent = text;
}

export function pairs(list, entries) {
  list.replaceChildren(...entries.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

export function keep(key) { sessionStorage.setItem(KEY, key); }

/** What this server says to a question. Throws an Error with a sentence for people, and the status and code. */
export async function ask(path, body) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(key ? { authorization: `Bearer ${key}` } : {}), ...(body ? { "content-type": "application/json" } : {}) };
  const options = { headers, cache: "no-store", credentials: "omit", method: body ? "POST" : "GET" };
  let response;
  try {
    response = await fetch(path, body ? { ...options, body: JSON.stringify(body) } : options);
  } catch {
    throw Object.assign(new Error("Weir does not answer."), { status: 0 });
  }
  const found = await response.json().catch(() => ({}));
  if (response.ok) return found;
  if (response.status === 401) dispatchEvent(new CustomEvent("key-wanted", { detail: key !== null }));
  const error = found.error ?? {};
  throw Object.assign(new Error(error.message ?? `Status ${response.status}.`), { status: response.status, code: error.code });
}

/** A number as people read it. */
export function short(value, digits = 1) {
  if (value === null || Number.isNaN(value)) return "–";
  if (Math.abs(value) >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (Math.abs(value) >= 1e4) return `${(value / 1e3).toFixed(1)} k`;
  return Number.isInteger(value) ? String(value) : value.toFixed(digits);
}

export const milliseconds = (seconds) => (seconds === null ? "–" : `${short(seconds * 1000, seconds < 0.01 ? 1 : 0)} ms`);
