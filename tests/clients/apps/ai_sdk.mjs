// The AI SDK: generateText and streamText, over its providers.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText, tool } from "ai";
import { z } from "zod";

export const PACKAGE = "ai";
const KEY = "sk-client";

// docs: @ai-sdk/openai
const openai = (url) => createOpenAI({ baseURL: `${url}/v1`, apiKey: KEY });
// openai("gpt-4o") speaks Responses, openai.chat("gpt-4o") chat completions
// docs: end

// docs: @ai-sdk/openai-compatible
const compatible = (url) => createOpenAICompatible({ name: "weir", baseURL: `${url}/v1`, apiKey: KEY });
// docs: end

// docs: @ai-sdk/anthropic
const anthropic = (url) => createAnthropic({ baseURL: `${url}/v1`, apiKey: KEY });
// docs: end

function weather(seen) {
  const execute = ({ city }) => {
    seen.calls.push(["get_weather", JSON.stringify({ city })]);
    return "sunny";
  };
  return { get_weather: tool({ inputSchema: z.object({ city: z.string() }), execute }) };
}

async function whole(model, seen, tools) {
  const made = await generateText({ model, prompt: "hello", tools });
  seen.keep({ content: made.content, steps: made.steps });
  [seen.text, seen.finish] = [made.text, made.finishReason];
  seen.annotate("`result.response.body`", made.response.body);
}

// Errors do not come out of these streams as exceptions: they are parts, and go to onError.
async function parts(model, seen, tools) {
  const made = streamText({ model, prompt: "hello", tools, includeRawChunks: true, onError: () => {} });
  for await (const part of made.fullStream) {
    seen.keep(part);
    if (part.type === "text-delta") seen.text += part.text;
    if (part.type === "raw") seen.annotate("`raw` parts (`includeRawChunks`)", part.rawValue.weir);
    if (part.type === "finish") seen.finish = part.finishReason;
    if (part.type === "error") seen.fail(part.error);
  }
}

async function textStream(model, seen, tools) {
  const made = streamText({ model, prompt: "hello", tools, onError: ({ error }) => seen.fail(error) });
  for await (const text of made.textStream) seen.text += text;
  seen.finish = await made.finishReason;
}

const way = (model, streamed = parts) => (url, { stream, tools, seen }) =>
  (stream ? streamed : whole)(model(url), seen, tools ? weather(seen) : undefined);

export const WAYS = {
  "@ai-sdk/openai: openai()": way((url) => openai(url)("gpt-4o")),
  "@ai-sdk/openai: openai.chat()": way((url) => openai(url).chat("gpt-4o")),
  "@ai-sdk/openai: openai.chat(), textStream": way((url) => openai(url).chat("gpt-4o"), textStream),
  "@ai-sdk/openai-compatible": way((url) => compatible(url)("m")),
  "@ai-sdk/anthropic": way((url) => anthropic(url)("m")),
};
