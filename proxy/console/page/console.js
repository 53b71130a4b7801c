// The views, and the key where the listener has one.

import { ask, byId, keep, say } from "./dom.js";
import * as live from "./live.js";
import * as playground from "./playground.js";
import * as records from "./records.js";

const VIEWS = { live, playground, records };
const tabs = [...document.querySelectorAll("[role=tab]")];
let isRunning = false;

function show(tab, focus = false) {
  for (const one of tabs) {
    const isShown = one === tab;
    one.setAttribute("aria-selected", String(isShown));
    one.tabIndex = isShown ? 0 : -1;
    byId(one.getAttribute("aria-controls")).hidden = !isShown || !byId("key-form").hidden;
  }
  const name = tab.getAttribute("aria-controls");
  if (focus) tab.focus();
  history.replaceState(null, "", `#${name}`);
  if (byId("key-form").hidden) VIEWS[name].show?.();
}

const shown = () => tabs.find((one) => one.getAttribute("aria-selected") === "true");

async function begin() {
  try {
    const about = await ask("/console/about");
    byId("version").textContent = about.version;
    byId("key-form").hidden = true;
    for (const view of Object.values(VIEWS)) view.showAbout(about);
    say("");
    show(shown());
    if (!isRunning) { isRunning = true; live.run(); }
  } catch (error) {
    if (error.status !== 401) { say(error.message, "bad"); setTimeout(begin, 3000); }
  }
}

addEventListener("key-wanted", (event) => {
  if (!byId("key-form").hidden && !event.detail) return;
  byId("key-form").hidden = false;
  for (const one of tabs) byId(one.getAttribute("aria-controls")).hidden = true;
  if (event.detail) say("That key does not open this listener.", "bad");
});

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(byId("key").value);
  byId("key").value = "";
  begin();
});

tabs.forEach((tab, number) => {
  tab.addEventListener("click", () => show(tab));
  tab.addEventListener("keydown", (event) => {
    const to = { ArrowRight: number + 1, ArrowLeft: number - 1 + tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); show(tabs[to % tabs.length], true); }
  });
});

playground.start();
records.start();
show(tabs.find((one) => one.getAttribute("aria-controls") === location.hash.slice(1)) ?? tabs[0]);
begin();
