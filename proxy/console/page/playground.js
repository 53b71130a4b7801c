// A conversation, judged for real: its tokens, the curve, and what a client would have got.

import { ask, byId, el, pairs, say } from "./dom.js";
import { tokenView } from "./tokens.js";

const ROLES = ["system", "user", "assistant"];
let number = 0;

export function showAbout(about) {
  byId("policy").replaceChildren(...about.policies.map((one) => el("option", { value: one.name }, `${one.name} (${one.mode}, ${one.on_flag}, ${one.release})`)));
}

export function start() {
  addTurn("user", "");
  addTurn("assistant", "");
  byId("add-turn").addEventListener("click", () => addTurn("user", "").querySelector("textarea").focus());
  byId("ask").addEventListener("submit", (event) => { event.preventDefault(); judge(); });
}

function addTurn(role, text) {
  number += 1;
  const options = ROLES.map((name) => el("option", { selected: name === role }, name));
  const turn = el("div", { class: "turn", role: "group", "aria-label": `Turn ${number}` },
    el("select", { "aria-label": `Role of turn ${number}` }, options),
    el("textarea", { "aria-label": `Text of turn ${number}`, rows: 2, spellcheck: "false" }, text),
    el("button", { type: "button", "aria-label": `Remove turn ${number}`, onclick: () => { turn.remove(); byId("add-turn").focus(); } }, "Remove"));
  byId("turns").append(turn);
  return turn;
}

async function judge() {
  const turns = [...byId("turns").children].map((turn) => ({ role: turn.querySelector("select").value, content: turn.querySelector("textarea").value }));
  const messages = turns.filter((turn) => turn.content);
  if (!messages.length) { say("Write something first.", "bad"); return; }
  const button = byId("judge");
  button.disabled = true;
  say("The guard reads.");
  try {
    const mode = byId("mode").value;
    const found = await ask("/console/judge", { messages, policy: byId("policy").value, ...(mode ? { mode } : {}) });
    byId("verdict").hidden = false;
    byId("verdict").replaceChildren(judged(found), received(found));
    say(summary(found));
  } catch (error) {
    say(error.message, "bad");
  } finally {
    button.disabled = false;
  }
}

function summary(found) {
  const tokens = found.texts.reduce((sum, text) => sum + text.tokens.length, 0);
  const prompt = found.prompt?.flagged ? `The prompt is flagged: ${found.prompt.category}. ` : "";
  const texts = found.texts.filter((text) => text.flagged_at !== null).map((text) => `${text.channel} is flagged from character ${text.flagged_at} of ${text.length}. `);
  return `${prompt}${texts.join("")}${found.flagged ? "" : "Nothing is flagged. "}${tokens} tokens of the answer were judged.`;
}

function judged(found) {
  const prompt = found.prompt
    ? el("p", {}, "Prompt: ", level(found.prompt), ` ${found.prompt.risk_prob.toFixed(2)}${found.prompt.category ? `, ${found.prompt.category}` : ""}${found.prompt.flagged ? ", flagged" : ""}`)
    : el("p", {}, "There is no question; the answer was judged behind an empty one.");
  const legend = el("p", { class: "hint" }, "Tokens: ", keyOf("Safe"), " ", keyOf("Controversial"), " ", keyOf("Unsafe"), "; struck through is what is withheld.");
  return el("div", { class: "panel" }, el("h3", {}, `Verdict of ${found.guard}, policy ${found.policy.name}, ${found.policy.mode}`), prompt, legend, found.texts.map((text) => textOf(text, found.client)));
}

const level = (risk) => el("span", { class: "level", "data-level": risk.risk_level }, risk.risk_level);
const keyOf = (name) => el("span", { class: "key-of", "data-level": name }, name);

function textOf(text, client) {
  const delivered = client.delivered[text.channel] ?? 0;
  const withheld = text.tokens.findIndex((token) => token.end > delivered);
  const flag = text.flagged_at === null ? -1 : text.tokens.findIndex((token) => token.end > text.flagged_at);
  const marks = [[withheld, "cut here"], ...(flag === withheld ? [] : [[flag, "flagged here"]])].filter(([n]) => n >= 0);
  const tokens = text.tokens.map((token) => ({ ...token, level: token.risk_level }));
  return el("div", {}, el("h4", {}, `${text.channel}: ${text.tokens.length} tokens, ${text.length} characters`), tokenView({ name: text.channel, tokens, withheld, marks }));
}

function received(found) {
  const panel = el("div", { class: "panel" }, el("h3", {}, "What a client would have received"));
  const client = found.client;
  if (!client) { panel.append(el("p", { class: "none" }, "The prompt passes. Add an answer to see what becomes of it.")); return panel; }
  if (client.reasoning_content) panel.append(el("h4", {}, "Reasoning"), el("div", { class: "received" }, client.reasoning_content));
  const text = client.content ?? client.message ?? "";
  panel.append(el("div", { class: "received" }, text || "(no text)"));
  const list = el("dl", { class: "pairs" });
  pairs(list, [["HTTP status", client.status], ["Outcome", client.outcome], ["finish_reason", client.finish_reason ?? "none"], ...(client.error ? [["Error", client.error]] : [])]);
  panel.append(list);
  return panel;
}
