"""Real clients against the running server: what an app's developer sees, streamed and whole.

`make test` runs those that are in this checkout's own environment; `make clients` all of them, each in an
environment of its own, and compares what they show with docs/clients.md.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.clients import page
from tests.clients.suite import (
    ARGUMENTS,
    CASES,
    CLIENTS,
    NOTICE,
    TEXT,
    Case,
    Client,
    Seen,
    calls_a_tool,
    says_text,
)
from tests.clients.workers import FOLDER, Worker, command_for, is_complete
from tests.fakes import Scripted
from tests.servers import weir

KINDS = {True: "text/event-stream", False: "application/json"}
SHAPES = [pytest.param(one, form, id=f"{one}-{page.FORMS[form]}") for one in CLIENTS for form in one.forms]


@dataclass
class Runs:
    """The workers so far, and what they have shown."""

    workers: dict[str, Worker] = field(default_factory=dict)
    cells: dict[page.Row, page.Cells] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    page: str = field(default_factory=page.PAGE.read_text)

    def worker(self, client: Client) -> Worker:
        command = command_for(client.environment, client.app.removesuffix("_python"))
        if isinstance(command, str):
            pytest.skip(f"{client.library}: {command}")
        if client.environment not in self.workers:
            self.workers[client.environment] = Worker(command)
        return self.workers[client.environment]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    runs = Runs()
    yield runs
    for worker in runs.workers.values():
        worker.close()
    if request.config.getoption("--write-docs"):
        page.PAGE.write_text(page.rewritten(runs.page, runs.cells, runs.versions))


@pytest.fixture
def compares(request: pytest.FixtureRequest) -> bool:
    return not request.config.getoption("--write-docs")


async def run(runs: Runs, client: Client, name: str, *, stream: bool) -> tuple[Seen, Scripted, Any]:
    worker, case = runs.worker(client), CASES[name]
    if case.takes_long and not is_complete():
        pytest.skip("`make clients` waits for the clients that ask again")
    answers = [says_text(client.door, stream=stream)]
    if case.tools:
        answers = [calls_a_tool(client.door, stream=stream), *answers]
    upstream = Scripted(answers=answers, content_type=KINDS[stream], pause=case.pause)
    guard = case.guard()
    async with weir(upstream, guard, policy__notice=NOTICE, **case.settings) as server:
        found = await worker.call(app=client.app, way=client.way, url=server.url, stream=stream, tools=case.tools)
    return Seen(**found, asked=len(upstream.requests)), upstream, guard


def check_page(runs: Runs, client: Client, name: str, seen: Seen, *, stream: bool, compares: bool) -> None:
    """What the page says of this is what was seen."""
    cell, row = page.cell_of(seen, name), page.row_of(client, stream=stream)
    runs.cells.setdefault(row, {})[name] = cell
    runs.versions[client.library] = seen.version
    if compares:
        assert page.written(runs.page)[row][name] == cell


def check_hidden(case: Case, seen: Seen) -> None:
    assert case.hidden not in seen.told


@pytest.mark.parametrize(("client", "stream"), SHAPES)
async def test_a_safe_answer(runs: Runs, client: Client, stream: bool) -> None:
    seen, _, guard = await run(runs, client, "safe", stream=stream)
    assert (seen.text, seen.error, seen.asked) == (TEXT, None, 1)
    assert guard.slots == 0


@pytest.mark.parametrize(("client", "stream"), SHAPES)
async def test_a_cut_keeps_the_text_before_it(runs: Runs, client: Client, stream: bool, compares: bool) -> None:
    seen, _, guard = await run(runs, client, "cut", stream=stream)
    check_hidden(CASES["cut"], seen)
    assert f"one two{NOTICE}".startswith(seen.text)
    assert seen.error is not None or seen.text == f"one two{NOTICE}"
    assert seen.asked == 1
    assert guard.slots == 0
    check_page(runs, client, "cut", seen, stream=stream, compares=compares)


@pytest.mark.parametrize(("client", "stream"), SHAPES)
async def test_an_annotated_answer_is_whole(runs: Runs, client: Client, stream: bool, compares: bool) -> None:
    seen, _, _ = await run(runs, client, "annotated", stream=stream)
    assert (seen.text, seen.error, seen.asked) == (TEXT, None, 1)
    check_page(runs, client, "annotated", seen, stream=stream, compares=compares)


@pytest.mark.parametrize(("client", "stream"), SHAPES)
async def test_a_blocked_prompt_raises_and_is_asked_once(
    runs: Runs, client: Client, stream: bool, compares: bool
) -> None:
    seen, _, guard = await run(runs, client, "blocked", stream=stream)
    check_hidden(CASES["blocked"], seen)
    assert seen.error is not None
    assert (seen.text, seen.calls, seen.asked) == ("", [], 0)
    assert len(guard.fed) == 1
    check_page(runs, client, "blocked", seen, stream=stream, compares=compares)


TOOL_SHAPES = [shape for shape, one in zip(SHAPES, [c for c in CLIENTS for _ in c.forms], strict=True) if one.has_tools]


@pytest.mark.parametrize(("client", "stream"), TOOL_SHAPES)
async def test_a_tool_call_arrives_whole(runs: Runs, client: Client, stream: bool) -> None:
    seen, _, _ = await run(runs, client, "tool", stream=stream)
    [(tool, arguments)] = seen.calls
    assert (tool, json.loads(arguments), seen.error) == ("get_weather", ARGUMENTS, None)
    assert seen.asked == 1 + client.is_agent
    assert seen.text == (TEXT if client.is_agent else "")


@pytest.mark.parametrize(("client", "stream"), TOOL_SHAPES)
async def test_nothing_is_seen_of_a_flagged_tool_call(runs: Runs, client: Client, stream: bool, compares: bool) -> None:
    seen, _, _ = await run(runs, client, "cut tool", stream=stream)
    check_hidden(CASES["cut tool"], seen)
    # Not even a part of it: agents mend arguments that were cut, and run the tool with them.
    assert (seen.calls, seen.asked) == ([], 1)
    check_page(runs, client, "cut tool", seen, stream=stream, compares=compares)


@pytest.mark.parametrize(("client", "stream"), SHAPES)
async def test_a_guard_that_fails_raises(runs: Runs, client: Client, stream: bool, compares: bool) -> None:
    seen, _, guard = await run(runs, client, "failure", stream=stream)
    check_hidden(CASES["failure"], seen)
    assert seen.error is not None
    assert TEXT.startswith(seen.text)
    assert seen.text != TEXT
    assert guard.slots == 0
    check_page(runs, client, "failure", seen, stream=stream, compares=compares)


@pytest.mark.parametrize(("client", "stream"), SHAPES)
async def test_a_guard_that_is_down_raises(runs: Runs, client: Client, stream: bool, compares: bool) -> None:
    seen, _, guard = await run(runs, client, "down", stream=stream)
    check_hidden(CASES["down"], seen)
    assert seen.error is not None
    assert (seen.text, seen.calls) == ("", [])
    assert guard.slots == 0
    check_page(runs, client, "down", seen, stream=stream, compares=compares)


def test_the_lock_file_pins_versions_and_no_download_address() -> None:
    lock = (FOLDER / "package-lock.json").read_text()
    assert "://" not in lock
    assert all("integrity" in package for name, package in json.loads(lock)["packages"].items() if name)


def test_every_python_package_is_pinned() -> None:
    for name in ("current", "older"):
        lines = (FOLDER / f"requirements-{name}.txt").read_text().splitlines()
        assert all("==" in line and "/" not in line for line in lines if not line.startswith("#"))


def test_the_page_has_each_client_and_the_code_that_ran(runs: Runs, compares: bool) -> None:
    if not compares:
        pytest.skip("it is being written")
    rows = {page.row_of(client, stream=form) for client in CLIENTS for form in client.forms}
    assert page.written(runs.page).keys() == rows
    assert page.versions(runs.page).keys() == {client.library for client in CLIENTS}
    assert page.snippets() in runs.page
    if is_complete():
        known = page.versions(runs.page)
        assert {library: known[library] for library in runs.versions} == runs.versions
