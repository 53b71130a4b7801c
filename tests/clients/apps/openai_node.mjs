// openai-node: chat, responses, and its stream helpers.
import OpenAI from "openai";

export const PACKAGE = "openai";
const KEY = "sk-client";
const HELLO = [{ role: "user", content: "hello" }];

// docs: openai-node
const client = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY });
// docs: end

function readChat(seen, event, part) {
  seen.keep(event);
  seen.annotate("`chunk.weir`", event.weir);
  for (const choice of event.choices) {
    seen.annotate("`choice.weir`", choice.weir);
    seen.finish = choice.finish_reason ?? seen.finish;
    seen.text += choice[part].content ?? "";
    for (const call of choice[part].tool_calls ?? []) {
      if (call.function.name) seen.calls.push([call.function.name, ""]);
      seen.calls.at(-1)[1] += call.function.arguments ?? "";
    }
  }
}

async function chat(url, { stream, seen }) {
  const made = await client(url).chat.completions.create({ model: "m", messages: HELLO, stream });
  if (!stream) return readChat(seen, made, "message");
  for await (const event of made) readChat(seen, event, "delta");
}

async function chatHelper(url, { seen }) {
  const stream = client(url).chat.completions.stream({ model: "m", messages: HELLO });
  stream.on("chunk", (event) => seen.annotate("`chunk.weir`", event.weir));
  stream.on("content", (delta) => (seen.text += delta));
  const made = await stream.finalChatCompletion();
  seen.keep(made);
  seen.finish = made.choices[0].finish_reason;
  for (const call of made.choices[0].message.tool_calls ?? []) {
    seen.calls.push([call.function.name, call.function.arguments]);
  }
}

function readEvent(seen, event) {
  seen.keep(event);
  seen.annotate("`event.weir`", event.weir);
  if (event.type === "response.output_text.delta") seen.text += event.delta;
  if (["response.completed", "response.incomplete"].includes(event.type)) readResponse(seen, event.response);
}

function readResponse(seen, made) {
  seen.keep(made);
  seen.annotate("`response.weir`", made.weir);
  seen.finish = made.incomplete_details?.reason ?? made.status;
  seen.calls = made.output.filter((item) => item.type === "function_call").map((item) => [item.name, item.arguments]);
}

async function responses(url, { stream, seen }) {
  const made = await client(url).responses.create({ model: "m", input: "hello", stream });
  if (stream) {
    for await (const event of made) readEvent(seen, event);
  } else {
    readResponse(seen, made);
    seen.text = made.output_text;
  }
}

async function responsesHelper(url, { seen }) {
  const stream = client(url).responses.stream({ model: "m", input: "hello" });
  for await (const event of stream) readEvent(seen, event);
  const made = await stream.finalResponse();
  readResponse(seen, made);
}

export const WAYS = {
  "chat.completions": chat,
  "chat.completions.stream": chatHelper,
  responses,
  "responses.stream": responsesHelper,
};
