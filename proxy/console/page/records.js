// What the store keeps of requests: counts, verdicts, times and the risk of each token; texts where they are asked for.

import { ask, byId, el, milliseconds, pairs, say, short } from "./dom.js";
import { bar } from "./chart.js";
import { tokenView } from "./tokens.js";

const PAGE = 50;
let keeps = false;

export function showAbout(about) {
  keeps = about.keeps_records;
  byId("search").hidden = !keeps;
  byId("no-records").hidden = keeps;
  byId("no-records").textContent = "No records are kept: set [records] file or url in weir.toml, and start Weir again.";
}

export function start() {
  byId("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
}

export function show() {
  if (keeps && byId("found").hidden) search();
}

async function search(until) {
  const wanted = new URLSearchParams([...new FormData(byId("search"))].filter(([, text]) => text));
  wanted.set("limit", PAGE);
  if (until) wanted.set("until", until);
  try {
    const { records } = await ask(`/console/records?${wanted}`);
    list(records);
    say(records.length ? `${records.length} records.` : "No record fits.");
  } catch (error) {
    say(error.message, "bad");
  }
}

function list(records) {
  const found = byId("found");
  found.hidden = false;
  if (!records.length) { found.replaceChildren(el("p", { class: "none" }, "No record fits.")); return; }
  const heads = ["Request", "When", "Outcome", "Flagged", "Model", "Key", "Seconds"];
  const rows = records.map((record) => el("tr", {},
    el("td", {}, el("button", { type: "button", title: "Open this record", onclick: (event) => open(record.request_id, event.currentTarget) }, record.request_id.slice(5, 13))),
    el("td", {}, when(record.started)), el("td", {}, record.outcome), el("td", { class: "name" }, flaggedOf(record) ?? ""),
    el("td", { class: "name" }, record.model), el("td", { class: "name" }, record.key), el("td", { class: "number" }, record.seconds.toFixed(2))));
  const older = records.length === PAGE ? el("p", { class: "row" }, el("button", { type: "button", onclick: () => search(records.at(-1).started) }, "Older")) : null;
  found.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col", class: name === "Seconds" ? "number" : null }, name)))), el("tbody", {}, rows)), ...(older ? [older] : []));
}

// Local time, as 2026-01-31 12:00:00 whatever the language.
const when = (seconds) => new Date(seconds * 1000).toLocaleString("sv-SE");

function flaggedOf(record) {
  if (record.prompt_flagged && record.prompt) return `prompt: ${record.prompt.category}`;
  const channel = record.channels.find((one) => one.flagged);
  return channel ? `${channel.channel}: ${channel.flagged.category}` : null;
}

async function open(id, button) {
  try {
    const record = await ask(`/console/records/${encodeURIComponent(id)}`);
    for (const row of byId("found").querySelectorAll("tr")) row.removeAttribute("aria-current");
    button.closest("tr").setAttribute("aria-current", "true");
    detail(record);
    say(`Record ${id} is open.`);
  } catch (error) {
    say(error.message, "bad");
  }
}

function detail(record) {
  const facts = el("dl", { class: "pairs" });
  pairs(facts, [
    ["Began", when(record.started)], ["Outcome", `${record.outcome}, status ${record.status}`], ["Endpoint", `${record.endpoint}${record.stream ? ", streamed" : ""}`],
    ["Model", record.model || "–"], ["Upstream", record.upstream || "–"], ["Key", record.key || "–"], ["Policy", record.policy], ["Guard", record.guard],
    ["Scanned", record.scanned], ...(record.error ? [["Error", record.error]] : []),
    ["Prompt", record.prompt ? `${risk(record.prompt)}${record.prompt_flagged ? ", flagged" : ""}, ${record.prompt_tokens} tokens` : "–"],
    ["Our first byte", milliseconds(record.first_byte_seconds)], ["The upstream's", milliseconds(record.upstream_first_byte_seconds)],
    ["Guard lag", `median ${milliseconds(record.guard_lag_p50_seconds)}, longest ${milliseconds(record.guard_lag_max_seconds)}`], ["Whole", `${record.seconds.toFixed(3)} s`],
  ]);
  const box = byId("record");
  box.hidden = false;
  box.replaceChildren(el("h3", {}, record.request_id), ...record.channels.flatMap((channel) => channelOf(channel, record)), ...promptOf(record),
    el("h4", {}, "The request"), facts, el("p", { class: "hint" }, "Offsets count characters of what the upstream sent."));
}

function promptOf(record) {
  const messages = record.trace?.prompt ?? [];
  if (!messages.length) return [];
  const texts = messages.flatMap((message) => [el("dt", {}, message.role ?? "–"), el("dd", {}, typeof message.content === "string" ? message.content : JSON.stringify(message))]);
  return [el("details", {}, el("summary", {}, `The prompt, ${messages.length} ${messages.length === 1 ? "message" : "messages"}`), el("dl", { class: "pairs said" }, texts))];
}

const risk = (note) => `${note.risk_level} ${note.probability.toFixed(2)}${note.category ? `, ${note.category}` : ""}`;
const place = (note) => `${risk(note)}, characters ${note.start} to ${note.end}`;

function channelOf(channel, record) {
  const length = Math.max(channel.received, 1);
  const parts = [["rest", 0, 1], ["fill", 0, channel.delivered / length]];
  if (channel.flagged) parts.push(["flag", channel.flagged.start / length, Math.max(channel.flagged.end, channel.flagged.start + length / 100) / length]);
  const facts = el("dl", { class: "pairs" });
  pairs(facts, [
    ["Received", `${short(channel.received)} characters, ${short(channel.tokens)} tokens judged`], ["Judged", short(channel.scanned)], ["Delivered", short(channel.delivered)],
    ["Worst", channel.worst ? place(channel.worst) : "–"], ...(channel.flagged ? [["Flagged", place(channel.flagged)]] : []),
  ]);
  return [el("h4", {}, `${channel.channel}, choice ${channel.choice}`), el("div", { class: "bar" }, bar(parts)), ...tokensOf(channel, record), facts];
}

/** The tokens as they were judged; the other views of a text are what its escapes or look-alike letters say. */
function tokensOf(channel, record) {
  const trace = record.trace?.channels.find((one) => one.choice === channel.choice && one.channel === channel.channel);
  const views = (trace?.views ?? []).filter((view) => view.ends.length);
  if (!views.length) return [];
  const name = `${channel.channel} ${channel.choice}`.replaceAll(" ", "-");
  const characters = trace.text === undefined ? null : Array.from(trace.text); // offsets count these, not UTF-16 units
  const shown = el("div", {});
  const show = (view) => shown.replaceChildren(viewOf(name, channel, record, view, characters));
  show(views[0]);
  if (views.length === 1) return [shown];
  const chosen = el("select", { onchange: () => show(views[chosen.selectedIndex]) }, views.map((_, n) => el("option", {}, n ? `read otherwise, ${n}` : "as it stands")));
  return [el("p", { class: "row" }, el("label", {}, "The text ", chosen)), shown];
}

function viewOf(name, channel, record, view, characters) {
  const tokens = view.ends.map((end, n) => {
    const start = n ? view.ends[n - 1] : 0;
    const text = characters === null || start >= characters.length ? null : characters.slice(start, end).join("");
    return { start, end, text, level: view.levels[n], unsafe: view.unsafe[n], controversial: view.controversial[n], category: view.categories[n] };
  });
  const withheld = tokens.findIndex((token) => token.end > channel.delivered);
  const flag = channel.flagged ? tokens.findIndex((token) => token.end > channel.flagged.start) : -1;
  const end = record.outcome === "cut" ? "cut here" : "delivered so far";
  const marks = [[withheld, end], ...(flag === withheld ? [] : [[flag, "flagged here"]])].filter(([n]) => n >= 0);
  const hints = [
    ...(characters === null ? ["The text is not kept: a square is a token."] : []),
    ...(view.left_out ? [`${short(view.left_out)} more tokens were judged and are not kept.`] : []),
  ];
  return el("div", {}, tokenView({ name, tokens, withheld, marks }), ...hints.map((hint) => el("p", { class: "hint" }, hint)));
}
