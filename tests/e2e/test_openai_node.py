"""The real openai-node client against the running server: what its users see of each outcome."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.driver import DONE, WORDS, answer, body, call, chunk
from tests.fakes import UNSAFE, Scripted, ScriptedGuard, ScriptedUpstream, labels, words
from tests.servers import weir

FOLDER = Path(__file__).parent / "node"
# The client's own package asks for 22; it is known to run on 20, and not on older ones.
OLDEST_NODE = 20
INSTALL_SECONDS = 300
CALL_SECONDS = 60

ROLE = {"role": "assistant", "content": None}  # this client insists on it
TOOL_CALL = [call(0, "get_weather"), call(0, arguments='{"city":'), call(0, arguments=' "Paris"}')]
TOOL_ANSWER = [chunk(ROLE), *TOOL_CALL, chunk({}, "tool_calls"), DONE]
USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


class Node:
    """One process for all tests: starting one for each would take most of their time."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [program, "client.mjs"], cwd=FOLDER, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def call(self, base_url: str, way: str, ask: dict[str, Any]) -> "Seen":
        """Blocks, so not on the loop that serves."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"baseURL": base_url, "way": way, "ask": ask}), file=self._process.stdin, flush=True)
        return Seen(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """The client, installed as the lock file says."""
    program = shutil.which("node")
    if program is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"node {version} is older than {OLDEST_NODE}")
    if not is_installed():
        install = ["npm", "ci", "--ignore-scripts", "--silent"]
        done = subprocess.run(install, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
        if done.returncode != 0:
            # Without a network there is nothing to test with, which must not go unseen in CI.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"npm ci failed: {done.stderr[-300:]}")
    started = Node(program)
    yield started
    started.close()


def is_installed() -> bool:
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]["openai"]
    package = FOLDER / "node_modules" / "openai" / "package.json"
    return package.exists() and json.loads(package.read_text())["version"] == wanted


@dataclass
class Seen:
    """What the client saw: the events, the tools it called, the result, or the error."""

    events: list[dict[str, Any]]
    calls: list[str] = field(default_factory=list)
    result: Any = None
    error: dict[str, Any] | None = None

    @property
    def choices(self) -> list[dict[str, Any]]:
        return [choice for event in self.events for choice in event["choices"]]

    def text(self, name: str = "content", index: int = 0) -> str:
        return "".join(choice["delta"].get(name) or "" for choice in self.choices if choice["index"] == index)

    @property
    def finish_reasons(self) -> list[str]:
        return [choice["finish_reason"] for choice in self.choices if choice["finish_reason"]]


async def use(
    node: Node,
    way: str,
    upstream: list[Any] | ScriptedUpstream,
    guard: ScriptedGuard | None = None,
    ask: dict[str, Any] | None = None,
    **settings: Any,
) -> Seen:
    """Call Weir in one of the ways of client.mjs."""
    if not isinstance(upstream, ScriptedUpstream):
        content_type = "application/json" if way == "body" else "text/event-stream"
        upstream = ScriptedUpstream(upstream, content_type=content_type)
    async with weir(upstream, guard, **settings) as server:
        return await asyncio.wait_for(asyncio.to_thread(node.call, server.base_url, way, ask or {}), CALL_SECONDS)


def test_the_lock_file_pins_versions_and_no_download_address() -> None:
    lock = (FOLDER / "package-lock.json").read_text()
    assert "://" not in lock
    assert "resolved" not in lock
    assert all("integrity" in package for name, package in json.loads(lock)["packages"].items() if name)


async def test_a_safe_answer_arrives_unchanged(node: Node) -> None:
    text = "Hello, wörld! 世界 😀 e\u0301\r\n\tdone"
    seen = await use(node, "events", answer(list(text)))
    assert (seen.text(), seen.finish_reasons, seen.error) == (text, ["stop"], None)
    seen = await use(node, "body", [body({"content": text})])
    assert seen.result["choices"][0]["message"]["content"] == text


async def test_a_flagged_answer_is_cut_before_the_flagged_text(node: Node) -> None:
    guard = ScriptedGuard(labels("SSUU"))
    seen = await use(node, "events", answer(WORDS), guard, policy__notice="[stopped]")
    assert (seen.text(), seen.finish_reasons, seen.error) == ("one two[stopped]", ["content_filter"], None)
    assert seen.events[-1]["weir"]["action"] == "block"
    assert guard.slots == 0


async def test_a_flagged_body_is_cut_at_the_same_place(node: Node) -> None:
    seen = await use(
        node, "body", [body({"content": "".join(WORDS)})], ScriptedGuard(labels("SSUU")), policy__notice=""
    )
    [choice] = seen.result["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", "content_filter")


@pytest.mark.parametrize("way", ["events", "body"])
async def test_a_blocked_prompt_is_an_error_that_is_not_retried(node: Node, way: str) -> None:
    guard = ScriptedGuard(prompt_level=UNSAFE)
    upstream = ScriptedUpstream(answer(WORDS))
    seen = await use(node, way, upstream, guard, policy__prompt_check="before")
    assert seen.error is not None
    assert (seen.error["kind"], seen.error["status"], seen.error["code"]) == ("BadRequestError", 400, "content_filter")
    assert len(guard.fed) == 1
    assert upstream.requests == []


async def test_the_stream_helper_builds_the_whole_answer(node: Node) -> None:
    seen = await use(node, "helper", answer(WORDS))
    assert seen.error is None
    assert seen.result["choices"][0]["message"]["content"] == "".join(WORDS)
    assert seen.text() == "".join(WORDS)


async def test_the_stream_helper_takes_a_cut_for_an_end(node: Node) -> None:
    seen = await use(node, "helper", answer(WORDS), ScriptedGuard(labels("SSUU")), policy__notice="")
    assert seen.error is None
    assert seen.result["choices"][0]["message"]["content"] == "one two"
    assert seen.result["choices"][0]["finish_reason"] == "content_filter"


async def test_a_tool_call_arrives_whole(node: Node) -> None:
    seen = await use(node, "helper", TOOL_ANSWER)
    [tool_call] = seen.result["choices"][0]["message"]["tool_calls"]
    assert (tool_call["id"], tool_call["function"]["name"]) == ("call_0", "get_weather")
    assert tool_call["function"]["arguments"] == '{"city": "Paris"}'


async def test_the_runner_runs_a_tool_and_reads_the_answer(node: Node) -> None:
    upstream = Scripted(answers=[TOOL_ANSWER, answer(WORDS)])
    seen = await use(node, "runner", upstream)
    assert (seen.error, seen.calls, seen.result) == (None, ["Paris"], "".join(WORDS))
    assert len(upstream.requests) == 2


async def test_the_runner_never_runs_a_flagged_tool_call(node: Node) -> None:
    upstream = Scripted(answers=[TOOL_ANSWER, answer(WORDS)])
    seen = await use(node, "runner", upstream, ScriptedGuard(words("Paris")))
    assert seen.calls == []
    assert len(upstream.requests) == 1


async def test_three_choices_are_kept_apart(node: Node) -> None:
    roles = [chunk(ROLE, index=index) for index in range(3)]
    chunks = [chunk({"content": word}, index=index) for word in WORDS for index in range(3)]
    ends = [chunk({}, "stop", index=index) for index in range(3)]
    seen = await use(node, "helper", [*roles, *chunks, *ends, DONE], ask={"n": 3})
    assert [choice["message"]["content"] for choice in seen.result["choices"]] == ["".join(WORDS)] * 3


async def test_reasoning_arrives_as_reasoning(node: Node) -> None:
    chunks = [chunk({"reasoning_content": "hm"}), chunk({"content": "yes"}), chunk({}, "stop"), DONE]
    seen = await use(node, "events", chunks)
    assert (seen.text("reasoning_content"), seen.text()) == ("hm", "yes")


async def test_usage_passes_and_is_estimated_after_a_cut(node: Node) -> None:
    ask = {"stream_options": {"include_usage": True}}
    chunks = [*answer(WORDS)[:-1], USAGE, DONE]
    seen = await use(node, "events", chunks, ask=ask)
    assert seen.events[-1]["usage"]["total_tokens"] == 3
    seen = await use(node, "events", chunks, ScriptedGuard(labels("SSUU")), ask)
    assert seen.events[-1]["usage"]["completion_tokens"] >= 4
    assert seen.events[-1]["weir"] == {"usage": "estimated"}


async def test_annotate_delivers_everything_and_says_what_was_found(node: Node) -> None:
    seen = await use(node, "events", answer(WORDS), ScriptedGuard(labels("SSUU")), policy__on_flag="annotate")
    assert (seen.text(), seen.finish_reasons) == ("".join(WORDS), ["stop"])
    levels = {event["weir"]["risk_level"] for event in seen.events if event["choices"][0]["delta"].get("content")}
    assert levels == {"Safe", "Unsafe"}


@pytest.mark.parametrize("way", ["events", "body"])
async def test_the_moderation_field_scores_both_sides(node: Node, way: str) -> None:
    chunks = answer(WORDS) if way == "events" else [body({"content": "".join(WORDS)})]
    score = {"mode": "score"}
    ask = {"moderation": {"model": "m", "policy": {"input": score, "output": score}}}
    seen = await use(node, way, chunks, ScriptedGuard(labels("SSUU")), ask, policy__on_flag="annotate")
    found = (seen.events[-1] if way == "events" else seen.result)["moderation"]
    assert found["input"]["type"] == found["output"]["type"] == "moderation_results"
    assert not found["input"]["results"][0]["flagged"]
    assert found["output"]["results"][0]["flagged"]


async def test_the_moderation_field_can_ask_for_a_block(node: Node) -> None:
    ask = {"moderation": {"model": "m", "policy": {"output": {"mode": "block"}}}}
    settings = {"policy__on_flag": "annotate", "policy__notice": ""}
    seen = await use(node, "events", answer(WORDS), ScriptedGuard(labels("SSUU")), ask, **settings)
    assert (seen.text(), seen.finish_reasons) == ("one two", ["content_filter"])


@pytest.mark.parametrize("way", ["events", "helper"])
async def test_a_guard_that_fails_is_an_error(node: Node, way: str) -> None:
    seen = await use(node, way, answer(WORDS), ScriptedGuard(fails_after=12))
    assert seen.error is not None
    assert "".join(WORDS).startswith(seen.text())
    assert seen.finish_reasons == []


@pytest.mark.parametrize("way", ["events", "helper"])
async def test_an_upstream_that_dies_is_an_error(node: Node, way: str) -> None:
    seen = await use(node, way, answer(WORDS)[:-2])
    assert seen.error is not None
    assert seen.finish_reasons == []
