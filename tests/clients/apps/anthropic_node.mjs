// @anthropic-ai/sdk: messages, and its stream helper.
import Anthropic from "@anthropic-ai/sdk";

export const PACKAGE = "@anthropic-ai/sdk";
const KEY = "sk-client";
const ASK = { model: "m", max_tokens: 99, messages: [{ role: "user", content: "hello" }] };

// docs: @anthropic-ai/sdk
const client = (url) => new Anthropic({ baseURL: url, apiKey: KEY });
// docs: end

function whole(seen, message) {
  seen.keep(message);
  seen.annotate("`message.weir`", message.weir);
  seen.finish = message.stop_reason;
  for (const block of message.content) {
    if (block.type === "text") seen.text += block.text;
    if (block.type === "tool_use") seen.calls.push([block.name, JSON.stringify(block.input)]);
  }
}

async function messages(url, { stream, seen }) {
  const made = await client(url).messages.create({ ...ASK, stream });
  if (!stream) return whole(seen, made);
  for await (const event of made) {
    seen.keep(event);
    seen.annotate("`event.weir`", event.weir);
    if (event.content_block?.type === "tool_use") seen.calls.push([event.content_block.name, ""]);
    seen.text += event.delta?.text ?? "";
    if (event.delta?.partial_json) seen.calls.at(-1)[1] += event.delta.partial_json;
    seen.finish = event.delta?.stop_reason ?? seen.finish;
  }
}

async function helper(url, { seen }) {
  const stream = client(url).messages.stream(ASK);
  stream.on("text", (delta) => (seen.text += delta));
  const message = await stream.finalMessage();
  seen.text = ""; // once more, of the whole
  whole(seen, message);
}

export const WAYS = { "messages.create": messages, "messages.stream": helper };
