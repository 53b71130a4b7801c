// Calls Weir with the real client, and says what a user of the client sees.
// A JSON line in, {"baseURL", "way", "ask"}; a JSON line out, {"events", "calls", "result", "error"}.
import { createInterface } from "node:readline";
import OpenAI from "openai";

const weather = (calls) => ({
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } } },
    parse: JSON.parse,
    function: ({ city }) => {
      calls.push(city);
      return "sunny";
    },
  },
});

const ways = {
  body: (api, ask) => api.create(ask),
  async events(api, ask, seen) {
    for await (const event of await api.create({ ...ask, stream: true })) {
      seen.events.push(event);
    }
  },
  helper(api, ask, seen) {
    const stream = api.stream(ask);
    stream.on("chunk", (event) => seen.events.push(event));
    return stream.finalChatCompletion();
  },
  runner: (api, ask, seen) => api.runTools({ ...ask, stream: true, tools: [weather(seen.calls)] }).finalContent(),
};

async function call({ baseURL, way, ask }) {
  const api = new OpenAI({ baseURL, apiKey: "sk-client", timeout: 30_000 }).chat.completions; // its own retries
  const seen = { events: [], calls: [] };
  try {
    const messages = [{ role: "user", content: "hello" }];
    seen.result = await ways[way](api, { model: "m", messages, ...ask }, seen);
  } catch (error) {
    const { status, code, type, param } = error;
    seen.error = { kind: error.constructor.name, message: error.message, status, code, type, param };
  }
  return seen;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await call(JSON.parse(line)))}\n`);
}
