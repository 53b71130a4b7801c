"""Public bugs of guards, engines, servers and clients, each as a test that Weir does not have it."""

import asyncio
import gc
import gzip
import json
import zlib
from collections.abc import Sequence

import pytest
from aiohttp import ClientResponse

from proxy.guard.protocol import GuardOutOfMemory
from proxy.retokenizer import encode
from proxy.risk import RiskLevel
from proxy.vocabulary import FIRST_CONTROL_ID, decode
from tests.driver import DONE, WORDS, answer, chunk
from tests.e2e.test_faults import outcome
from tests.e2e.test_streams import events
from tests.fakes import SAFE, RawUpstream, ScriptedGuard, ScriptedUpstream, content_of, framed, labels
from tests.reliability.bugs import CANARY, FLAGGED, is_cut, parts, tell
from tests.servers import recorded, weir
from tests.sockets import PATIENCE_SECONDS, Reply, ask, connected, http_request, timed

# NeMo Guardrails.


@pytest.mark.parametrize("pieces", [["ass", "isting"], ["a", "s", "s", "isting you"], ["assis", "ting"]])
async def test_nemo_1197_pieces_are_one_text_to_the_guard(pieces: list[str]) -> None:
    """NVIDIA-NeMo/Guardrails#1197: a space between the pieces made "ass isting" of "assisting"."""
    told = await tell(chunks=answer(["I am ", *pieces]))
    fed = max((content_of(ids) for ids in told.guard.fed), key=len)
    assert decode(fed).strip() == "I am " + "".join(pieces)
    assert "ass isting" not in decode(fed)


async def test_nemo_1259_no_blank_is_lost_on_the_way() -> None:
    """NVIDIA-NeMo/Guardrails#1259: words ran together where chunks were split and joined."""
    text = "This  is \n\n a safe\tand compliant   joke. "
    for size in (1, 3, 7):
        told = await tell(chunks=answer([text[at : at + size] for at in range(0, len(text), size)]))
        assert told.heard is not None
        assert told.heard.text == text


async def test_nemo_1187_metadata_in_a_stream_is_no_text() -> None:
    """NVIDIA-NeMo/Guardrails#1187: chunks that were no strings broke the buffer."""
    with_usage = chunk({"content": " words"}, usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2})
    odd = b'data: {"id":"x","choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n'
    told = await tell(chunks=[odd, *parts("fine"), with_usage, chunk({}, "stop"), DONE])
    assert told.heard is not None
    assert told.heard.text == "fine words"


async def test_nemo_1999_no_text_is_beyond_the_window() -> None:
    """NVIDIA-NeMo/Guardrails#1999: what did not fit the model's context was cut off before it was judged."""
    guard = ScriptedGuard(lambda ids: CANARY(ids[-8:]), window=300)
    told = await tell(chunks=answer(["word " * 400, "and a canary sings on"]), guard=guard)
    assert b"canary" not in told.reply.raw
    assert told.record["outcome"] == "cut"


async def test_nemo_966_a_window_without_look_back_is_no_window() -> None:
    """NVIDIA-NeMo/Guardrails#966: rails read windows of tokens, and what spans two of them in no context at all."""
    told = await tell(chunks=answer(list(FLAGGED)))
    assert is_cut(told)
    text = max((decode(content_of(ids)) for ids in told.guard.fed), key=len)
    assert text.startswith("these words are fine, but a can")  # each token behind all before it


# Qwen3Guard and vLLM.


async def test_qwen3guard_29_no_state_is_used_again() -> None:
    """QwenLM/Qwen3Guard#29: a stream's id used again slowed every call, and verdicts drifted from Unsafe to Safe."""
    guard = ScriptedGuard(labels("SSUU"))
    async with weir(ScriptedUpstream(answer(WORDS)), guard, policy__notice="") as server:
        for _ in range(12):
            found = events(await ask(server.url, stream=True))
            assert (found.content, found.finish) == ("one two", {0: "content_filter"})
    assert guard.slots == 0
    assert len({len(ids) for ids in guard.fed}) <= 2  # prompts and answers, none of which grew


async def test_qwen3guard_22_no_token_is_fed_twice() -> None:
    """QwenLM/Qwen3Guard#22: every call passed the whole text so far."""
    text = "These are forty words or so, one after another, and none of them is ever read again. " * 3
    told = await tell(chunks=answer([f"{word} " for word in text.split()]))
    assert told.guard.tokens <= len(encode(text)) + 16


async def test_qwen3guard_eval_stream_the_first_token_of_a_run_is_held() -> None:
    """Qwen3Guard eval/eval_stream.py: two tokens in a row make a flag, and the first of them has been sent by then."""
    told = await tell(chunks=answer(WORDS), guard=ScriptedGuard(labels("SUSUUS")))
    assert told.heard is not None
    assert told.heard.text == "one two three"


async def test_vllm_cve_2026_34756_a_number_of_answers_has_a_limit() -> None:
    """CVE-2026-34756 (vLLM): `n` had no bound."""
    for n in (0, -1, 129, 10**9, "2", True):
        told = await tell(more={"n": n})
        assert (told.reply.status, told.asked) == (400, []), n


@pytest.mark.parametrize("text", ["<|im_end|>", "<|endoftext|>", "<think>", "<tool_call>", "<|image_pad|>"])
async def test_vllm_cve_2026_44222_the_text_of_a_control_token_is_text(text: str) -> None:
    """CVE-2026-44222 (vLLM): the text of a special token in a request became the token, and crashed the engine."""
    messages = [{"role": "user", "content": f"hello {text} you"}]
    told = await tell(chunks=answer([f"so {text}", " there"]), more={"messages": messages})
    assert told.heard is not None
    assert told.heard.text == f"so {text} there"
    answers = [content_of(ids) for ids in told.guard.fed]
    assert any(text in decode(ids) for ids in answers)
    assert all(one < FIRST_CONTROL_ID for ids in answers for one in ids)


async def test_vllm_cve_2026_105757_a_failure_is_its_own_requests() -> None:
    """CVE-2026-105757 (vLLM): one input took the engine down for everybody."""

    def rule(ids: Sequence[int]) -> RiskLevel:
        if "poison" in decode(ids):
            raise GuardOutOfMemory("poison")
        return SAFE

    guard = ScriptedGuard(rule)
    upstream = ScriptedUpstream(answer(["fine ", "words"]))
    async with weir(upstream, guard) as server:
        replies = await asyncio.gather(*(ask(server.url, stream=True) for _ in range(8)))
        upstream.chunks = answer(["fine ", "poison ", "words"])
        assert outcome(await ask(server.url, stream=True)) == "error"
        upstream.chunks = answer(["fine ", "words"])
        replies += await asyncio.gather(*(ask(server.url, stream=True) for _ in range(8)))
    assert {outcome(reply) for reply in replies} == {"complete"}
    assert guard.slots == 0


async def test_vllm_pysec_2026_4350_lists_have_an_end() -> None:
    """PYSEC-2026-4350 (vLLM): a request could ask for the log probabilities of any number of token ids."""
    for more in ({"logprob_token_ids": list(range(1_000_001))}, {"stop": ["x"] * 10**6}):
        assert (await tell(text="fine", more=more)).reply.status == 400
    entry = {"token": "fine", "logprob": -1.0, "bytes": None, "top_logprobs": [{"token": "a canary", "logprob": -9.0}]}
    choice = {"index": 0, "delta": {"content": "fine"}, "logprobs": {"content": [entry], "ids": {"7": "a canary"}}}
    said = b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n"
    told = await tell(chunks=[said, chunk({}, "stop"), DONE], more={"logprobs": True, "logprob_token_ids": [7]})
    assert told.record["outcome"] == "complete"
    assert b"canary" not in told.reply.raw


# Clients and agents that lost text, or took half of it for all.


async def test_opencode_40061_half_an_answer_is_no_answer() -> None:
    """opencode#40061: a stream that broke off was taken for a whole answer."""
    async with weir(RawUpstream(framed(b"".join(parts("one two three")), "close"))) as server:
        reply = await ask(server.url, stream=True)
    assert outcome(reply) == "error"
    assert events(reply).finish == {}


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "\\ud83d\\ud83d"])
async def test_hermes_84281_half_a_character_ends_no_stream(half: str) -> None:
    """hermes-agent#84281, Rapid-MLX#730: half a surrogate pair gave a 200, and then nothing."""
    odd = f'data: {{"choices":[{{"index":0,"delta":{{"content":"hi {half} you"}}}}]}}\n\n'.encode()
    told = await tell(chunks=[odd, chunk({}, "stop"), DONE])
    assert told.heard is not None
    assert told.heard.text.startswith("hi \ufffd")
    assert told.heard.text.endswith(" you")
    assert told.record["outcome"] == "complete"


async def test_aider_3693_and_none_of_a_request_is_a_mistake_of_ours() -> None:
    """aider#3693: a lone surrogate in a prompt raised UnicodeEncodeError."""
    raw = b'{"model":"m","messages":[{"role":"user","content":"hi \\ud800"}]}'
    async with weir(ScriptedUpstream(answer(WORDS))) as server:
        assert (await ask(server.url, http_request(raw))).status == 400
        assert server.upstream.requests == []


async def test_codex_lb_2045_answers_are_let_go_without_the_collector() -> None:
    """codex-lb#2045: responses that were left early stayed, 700 KB each, until the collector came."""
    async with weir(ScriptedUpstream(answer(WORDS)), ScriptedGuard(labels("SUU"))) as server:
        await ask(server.url, stream=True)
        gc.collect()
        before = len(responses())  # other tests may hold some
        gc.disable()
        try:
            for _ in range(15):
                await ask(server.url, stream=True)
            alive = len(responses())
        finally:
            gc.enable()
        assert alive <= before + 1


def responses() -> list[ClientResponse]:
    return [one for one in gc.get_objects() if type(one) is ClientResponse]


async def test_openrouter_comments_of_an_upstream_stay_there() -> None:
    """openrouter.ai/docs, streaming: clients are invited to show the comments of its streams, which nobody judges."""
    told = await tell(chunks=[b": a canary sings\n\n", *parts("fine"), b": canary\n", chunk({}, "stop"), DONE])
    assert b"canary" not in told.reply.raw
    assert told.record["outcome"] == "complete"


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\u2028", "\u0085", "\x00"], ids=repr)
async def test_encoders_cve_2026_33128_no_text_becomes_an_event(separator: str) -> None:
    """CVE-2026-33128 and -86252 (h3), CVE-2026-43968 (cowlib), CVE-2026-44214 (eventsource-encoder)."""
    text = f"one{separator}{separator}data: [DONE]{separator}{separator}event: error{separator}two"
    told = await tell(chunks=answer([text]))
    assert told.heard is not None
    assert told.heard.text == text
    assert told.record["outcome"] == "complete"


# Servers and libraries.


async def test_xinference_5213_a_body_that_drips_has_a_deadline() -> None:
    """xorbitsai/inference#5213: requests that came slowly held their connections for ever."""
    head = http_request().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    async with weir(server__request_seconds=0.3) as server, connected(server.url) as client:
        await client.send(head + b'{"model"')
        with timed():
            await client.closed()


async def test_go_50580_connection_names_no_header_of_ours_away() -> None:
    """golang/go#50580: a client's Connection header removed headers that the proxy had added."""
    told = await tell(
        text="fine", headers={"Connection": "authorization, x-title", "X-Title": "t"}, upstream__api_key="k"
    )
    assert told.asked[0]["headers"]["authorization"] == "Bearer k"
    assert "x-title" not in {name.lower() for name in told.asked[0]["headers"]}


async def test_ollama_cve_2024_28224_no_page_of_another_site_is_let_in() -> None:
    """CVE-2024-28224 (Ollama), GHSA-w48q-cv73-mx4w (MCP SDK): web pages reached a local server."""
    simple = {"Origin": "https://evil.test", "Content-Type": "text/plain"}
    told_simple = await posted(simple)
    assert told_simple.status == 403
    preflight = {"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"}
    async with weir(ScriptedUpstream(answer(WORDS))) as server:
        reply = await ask(server.url, http_request(b"", method="OPTIONS", headers=preflight))
    assert reply.status == 403
    assert not [name for name in reply.headers if name.startswith("access-control")]


async def posted(headers: dict[str, str]) -> Reply:
    async with weir(ScriptedUpstream(answer(WORDS))) as server:
        reply = await ask(server.url, http_request(headers=headers))
        assert server.upstream.requests == []
    return reply


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_aiohttp_cve_2025_69223_a_compressed_request_is_refused(encoding: str) -> None:
    """CVE-2025-69223, CVE-2026-128131 (aiohttp): bombs, and very many empty members."""
    data = gzip.compress(b"0" * (20 << 20)) if encoding == "gzip" else zlib.compress(b"0" * (20 << 20))
    async with weir() as server:
        with timed():
            reply = await ask(server.url, http_request(data, headers={"Content-Encoding": encoding}))
    assert reply.status == 415


async def test_aiohttp_cve_2026_34519_no_reason_phrase_passes() -> None:
    """CVE-2026-34519 (aiohttp): a reason phrase could split a response."""
    raw = b"HTTP/1.1 429 a canary\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    async with weir(RawUpstream(raw)) as server:
        reply = await ask(server.url)
    assert reply.status == 429
    assert b"canary" not in reply.raw


async def test_aiohttp_cve_2026_54273_a_flood_of_pipelined_requests_is_served_in_turn() -> None:
    """CVE-2026-54273 (aiohttp): pipelined requests were queued without bound."""
    one = http_request(b"", method="GET", path="/healthz")
    async with weir() as server, connected(server.url) as client, asyncio.timeout(PATIENCE_SECONDS):
        await client.send(one * 199 + http_request(b"", method="GET", path="/healthz", headers={"Connection": "close"}))
        with timed():
            assert (await ask(server.url, one)).status == 200
        assert (await client.closed()).count(b'{"status": "ok"}') == 200


async def test_aiohttp_cve_2025_69229_a_body_in_chunks_of_one_byte_is_a_body() -> None:
    """CVE-2025-69229 (aiohttp): chunks of one byte cost far too much."""
    data = http_request(stream=True)
    head, _, content = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    drops = b"".join(b"1\r\n%c\r\n" % byte for byte in content + b" " * 50_000) + b"0\r\n\r\n"
    raw = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""]) + drops
    async with weir(ScriptedUpstream(answer(WORDS))) as server:
        with timed():
            assert outcome(await ask(server.url, raw)) == "complete"


async def test_tei_cve_2026_108857_a_mistake_shows_no_request() -> None:
    """CVE-2026-108857 (text-embeddings-inference): errors and logs repeated the input."""
    guard = ScriptedGuard(fails_after=0, error=ValueError("canary"))  # type: ignore[arg-type]
    messages = [{"role": "user", "content": "canary"}]
    async with weir(ScriptedUpstream(answer(WORDS)), guard) as server:
        with recorded() as records:
            reply = await ask(server.url, stream=True, messages=messages)
            record = await records.next()
    assert b"canary" not in reply.raw
    assert "canary" not in json.dumps(record)
