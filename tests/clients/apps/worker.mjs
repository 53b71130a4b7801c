// Calls Weir the way an app does, and says what the app's developer sees: worker.py, for node.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { inspect } from "node:util";

class Seen {
  text = "";
  finish = null;
  calls = [];
  annotation = null;
  error = null;
  dump = "";

  keep(value) {
    this.dump += `${JSON.stringify(value)}\n`;
  }

  annotate(where, value) {
    if (value && JSON.stringify(value).includes("Unsafe")) this.annotation = where;
  }

  fail(error) {
    const status = error.status ?? error.statusCode ?? error.lastError?.statusCode ?? null;
    this.error = { kind: error.constructor.name, status, message: String(error.message) };
    this.dump += `${inspect(error, { depth: 8 })}\n`;
  }
}

function versionOf(name) {
  const file = new URL(`../node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(file)).version;
}

async function answer({ app, way, url, stream, tools }) {
  const { WAYS, PACKAGE } = await import(`./${app}.mjs`);
  const [run, name] = [WAYS[way], PACKAGE ?? way];
  const seen = new Seen();
  try {
    await run(url, { stream, tools, seen });
  } catch (error) {
    seen.fail(error);
  }
  return { ...seen, version: versionOf(name) };
}

console.log = console.info = console.error; // what a library prints must not be taken for an answer
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
}
