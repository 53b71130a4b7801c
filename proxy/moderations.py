"""`weir moderate` of one conversation or many: files, JSON lists and JSON lines, judged at once, told in order."""

import asyncio
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from proxy.guard.protocol import Guard, GuardError
from proxy.guards import open_guard
from proxy.moderate import (
    BAD_INPUT,
    FAILED,
    FLAGGED,
    HANG_SECONDS,
    SAFE,
    BadConversation,
    as_dict,
    messages_of,
    moderate,
    read_body,
    read_source,
    run_one,
)
from proxy.policies import policy_of
from proxy.settings import Settings

# From mildest to worst: a conversation without a verdict is worse than one that is flagged.
SEVERITY = (SAFE, FLAGGED, BAD_INPUT, FAILED)
LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Entry:
    """One conversation, not yet read: its bytes, what a list held, or why there is neither."""

    name: str  # the file, with the line or the place in its list
    body: bytes | dict[str, Any] | BadConversation


def run(sources: Sequence[str], settings: Settings, *, as_json: bool, streams: int) -> int:
    """Judge the files ("-" is standard input), print the outcome, return the worst exit status.

    One conversation is shown as `moderate` shows it; several are a JSON line each, in the order given,
    with `source` and either the moderation or an `error`. `streams` are judged at a time.
    """
    found = [entry for source in sources for entry in entries(source, settings)]
    if len(found) == 1 and found[0].name == sources[0]:
        return run_one(found[0].name, found[0].body, settings, as_json=as_json)
    try:
        return asyncio.run(_run_all(found, settings, streams))
    except GuardError as exc:
        print(f"There is no verdict: {exc}.", file=sys.stderr)
        return FAILED


def entries(source: str, settings: Settings) -> Iterator[Entry]:
    """The conversations of a file. A file that cannot be read is one that is none."""
    try:
        raw = read_source(source)
        if raw.lstrip()[:1] == b"[":
            yield from _listed(source, raw, settings)
        elif source.endswith(LINES) or _is_lines(raw):
            lines = enumerate(raw.split(b"\n"), start=1)
            yield from (Entry(f"{source}:{number}", line) for number, line in lines if line.strip())
        else:
            yield Entry(source, raw)
    except BadConversation as exc:
        yield Entry(source, exc)


def _listed(source: str, raw: bytes, settings: Settings) -> Iterator[Entry]:
    # Read as an object, so that a list is read as strictly as everything else.
    items = read_body(b'{"list":' + raw + b"}", settings)["list"]
    for number, item in enumerate(items):
        name = f"{source}[{number}]"
        yield Entry(name, item if isinstance(item, dict) else BadConversation("An entry must be a JSON object."))


def _is_lines(raw: bytes) -> bool:
    """More than one line, and the first is an object by itself."""
    first, _, rest = raw.strip().partition(b"\n")
    try:
        return bool(rest) and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


async def _run_all(found: Sequence[Entry], settings: Settings, streams: int) -> int:
    # Conversations wait for each other here; no client does.
    patient = settings.guard.model_copy(update={"verdict_seconds": HANG_SECONDS, "admission_seconds": HANG_SECONDS})
    guard = await open_guard(settings.model_copy(update={"guard": patient}), may_fork=False)
    worst = SAFE
    try:
        with _progress() as bar:
            task = bar.add_task("judged", total=len(found))
            room = asyncio.Semaphore(streams)
            async with asyncio.TaskGroup() as group:
                under_way: deque[asyncio.Task[tuple[int, dict[str, Any]]]] = deque()
                for number in range(len(found) + 2 * streams):
                    if number < len(found):
                        under_way.append(group.create_task(_judge(found[number], guard, settings, room)))
                    if under_way and number >= 2 * streams - 1:
                        status, line = await under_way.popleft()
                        print(json.dumps(line, ensure_ascii=False), flush=True)
                        worst = max(worst, status, key=SEVERITY.index)
                        bar.advance(task)
    finally:
        await guard.close()
    return worst


async def _judge(entry: Entry, guard: Guard, settings: Settings, room: asyncio.Semaphore) -> tuple[int, dict[str, Any]]:
    """Its exit status and its line."""
    source = {"source": entry.name}
    try:
        async with room:
            messages = messages_of(entry.body, settings)
            moderation = await moderate(
                messages,
                guard,
                policy_of(settings.policy),
                allow_unscanned=settings.policy.allow_unscanned,
                folds=settings.guard.folded_view,
            )
    except BadConversation as exc:
        return BAD_INPUT, source | {"error": str(exc)}
    except GuardError as exc:
        return FAILED, source | {"error": f"There is no verdict: {exc}."}
    return FLAGGED if moderation.is_flagged else SAFE, source | as_dict(moderation)


def _progress() -> Progress:
    """On standard error, and on a terminal only: the lines on standard output are for programs."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True)
