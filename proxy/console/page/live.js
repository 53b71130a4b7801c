// What runs now: totals once a second, of which differences are drawn.

import { ask, byId, el, milliseconds, pairs, say, short } from "./dom.js";
import { Chart, bars } from "./chart.js";

const EVERY = 1000; // milliseconds
const HEALTH_EVERY = 5; // polls: a verdict on a canary costs the guard something
const WINDOW = 10; // polls that percentiles are taken of
const SMOOTH = 5; // polls that rates are taken over
const MINUTE = 60;
const UPSTREAM_ERRORS = ["upstream_ended", "upstream_error", "upstream_timeout", "upstream_unreachable", "upstream_unreadable"];

const charts = {
  streams: new Chart("Streams in flight", ["streams"]),
  requests: new Chart("Requests a second", ["complete", "cut", "error or refused", "client gone"]),
  lag: new Chart("Guard lag", ["median", "95th percentile"], milliseconds),
  tokens: new Chart("Tokens a second", ["tokens"]),
};
const polls = []; // the newest last
let about = null;
let health = "";

export function showAbout(found) {
  about = found;
  byId("charts").replaceChildren(...Object.values(charts).map((chart) => chart.element));
}

/** Polls until the page is closed; not while it is out of sight. */
export async function run() {
  for (let count = 0; ; count += 1) {
    if (!document.hidden) await poll(count % HEALTH_EVERY === 0);
    await new Promise((done) => setTimeout(done, EVERY));
  }
}

async function poll(withHealth) {
  try {
    const found = { ...(await ask("/console/live")), time: performance.now() / 1000 };
    if (byId("status").dataset.state === "lost") say("");
    const before = polls.at(-1);
    // A total that shrinks is that of another process: begin anew.
    if (before && found.tokens < before.tokens) polls.length = 0;
    polls.push(found);
    if (polls.length > MINUTE + 1) polls.shift();
    draw(found);
    if (withHealth) askHealth();
  } catch (error) {
    if (error.status !== 401) say(error.message, "lost");
    setState("guard-state", "unknown", "Guard: not known");
  }
}

async function askHealth() {
  try {
    const found = await ask("/console/health");
    const text = found.ready ? `Guard: ready, ${milliseconds(found.seconds)}` : `Guard: ${found.detail}`;
    setState("guard-state", found.ready ? "good" : "bad", text);
    if (found.ready !== health && health !== "") say(found.ready ? "The guard is ready again." : "The guard is not ready.", found.ready ? "" : "bad");
    health = found.ready;
  } catch {
    setState("guard-state", "unknown", "Guard: not known");
  }
}

function setState(id, state, text) {
  byId(id).dataset.state = state;
  byId(id).textContent = text;
}

function draw(now) {
  const before = polls.length > 1 ? polls.at(-Math.min(polls.length, SMOOTH + 1)) : null;
  const rate = (read) => (before ? Math.max(0, read(now) - read(before)) / (now.time - before.time) : null);
  const of = (name) => (found) => found.requests[name] ?? 0;
  const earlier = polls.at(-Math.min(polls.length, WINDOW + 1));
  const lag = [0.5, 0.95].map((share) => percentile(now.guard_lag, earlier.guard_lag, share));
  charts.streams.add([now.streams]);
  charts.requests.add([rate(of("complete")), rate(of("cut")), rate((found) => of("error")(found) + of("refused")(found)), rate(of("client_gone"))]);
  charts.lag.add(lag);
  charts.tokens.add([rate((found) => found.tokens)]);
  drawTiles(now, lag);
  bars(byId("cuts"), now.cuts, ["Category", "Texts"], "Nothing was flagged.");
  bars(byId("errors"), now.errors, ["Code", "Errors"], "There were none.");
  drawEngine(now);
  drawUpstream(now);
}

function drawTiles(now, lag) {
  const ended = Object.values(now.requests).reduce((sum, count) => sum + count, 0);
  const cut = now.requests.cut ?? 0;
  const tiles = [
    ["Streams in flight", short(now.streams)],
    ["Requests ended", short(ended)],
    ["Cut", ended ? `${short(cut)} (${((100 * cut) / ended).toFixed(1)} %)` : "0"],
    ["Guard lag, 95th percentile", milliseconds(lag[1])],
    ["Delivered unjudged", `${short(now.characters.unscanned ?? 0)} chars`],
  ];
  byId("tiles").replaceChildren(...tiles.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function drawEngine(now) {
  const engine = now.engine;
  const shown = [["streams", "Streams"], ["queue_depth", "Questions waiting"], ["last_batch", "Streams in the last step"], ["evictions", "Evictions"], ["faults", "Faults"], ["restarts", "Restarts"]];
  const memory = engine.kv_budget_bytes ? [["Memory of streams", `${short(engine.kv_held_bytes / 2 ** 20)} of ${short(engine.kv_budget_bytes / 2 ** 20)} MiB`]] : [];
  const upstreams = about.upstreams.map((one) => [`Upstream ${one.name}`, `${one.host}, ${one.dialect}`]);
  pairs(byId("engine"), [
    ["Guard", about.guard.model],
    ["Revision", about.guard.revision],
    ...shown.filter(([name]) => name in engine).map(([name, title]) => [title, short(engine[name])]),
    ...memory,
    ...("workers" in now ? [["Workers", `${short(now.workers)}, ${short(now.worker_deaths)} replaced so far`]] : []),
    ["Event loop, latest ever", milliseconds(now.loop_lag_worst)],
    ...upstreams,
    ...(now.draining ? [["Stopping", "finishing what runs"]] : []),
  ]);
}

/** From what requests met in the last minute: nobody is asked for it. */
function drawUpstream(now) {
  const then = polls[0];
  const grown = (name, key) => (now[name][key] ?? 0) - (then[name][key] ?? 0);
  const failed = UPSTREAM_ERRORS.reduce((sum, code) => sum + grown("errors", code), 0);
  const answered = grown("requests", "complete") + grown("requests", "cut");
  if (failed) setState("upstream-state", "bad", `Upstream: ${failed} failed, ${answered} answered in the last minute`);
  else if (answered) setState("upstream-state", "good", `Upstream: ${answered} answered in the last minute`);
  else setState("upstream-state", "unknown", "Upstream: no answers in the last minute");
}

/** The value that `share` of what came between two histograms does not exceed, to within its bucket; null without any. */
export function percentile(now, then, share) {
  const counts = now.map(([bound, count], n) => [bound, count - (then[n]?.[1] ?? 0)]);
  const total = counts.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  let lower = 0;
  let below = 0;
  for (const [bound, count] of counts) {
    if (count >= share * total) return bound === null ? lower : lower + ((bound - lower) * (share * total - below)) / Math.max(count - below, 1e-9);
    [lower, below] = [bound, count];
  }
  return lower;
}
