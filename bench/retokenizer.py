"""How long a delta takes to re-tokenize, and how long its text waits.

    python -m bench.retokenizer [--deltas 2000] [--rounds 7] [--seed 1]

Beside it stands the simple way: encoding the whole text again at each delta (tiktoken, same vocabulary).
Times are CPU seconds of this process, the least of several rounds; compare ratios, not machines.
"""

import argparse
import functools
import platform
import random
import statistics
import time
from collections import deque
from collections.abc import Callable

import tiktoken
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.texts import TEXTS
from proxy import pretoken, settling, vocabulary
from proxy.retokenizer import Retokenizer

# Letters, digits and so on by tiktoken's tables: near enough for a time.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CACHES: list["functools._lru_cache_wrapper[object]"] = [
    found
    for module in (pretoken, settling)
    for name, found in vars(module).items()
    if isinstance(found, functools._lru_cache_wrapper) and name != "_words"
]


def cut(text: str, count: int | None, source: random.Random) -> list[str]:
    """Deltas of 3 to 5 characters, as models send them; with a count, the text again and again."""
    deltas: list[str] = []
    at = 0
    while at < len(text) if count is None else len(deltas) < count:
        size = source.choice((3, 4, 4, 5))
        deltas.append(text[at : at + size])
        at += size
        if count is not None and at >= len(text):
            at = 0
    return deltas


def forget() -> None:
    for cache in CACHES:
        cache.cache_clear()


def feed(deltas: list[str]) -> int:
    retokenizer = Retokenizer()
    tokens = sum(len(retokenizer.feed(delta)) for delta in deltas)
    return tokens + len(retokenizer.finish())


def least(rounds: int, run: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Microseconds of the fastest round."""
    times = []
    for _ in range(rounds):
        before()
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times) * 1e6


def encode_again(encoding: tiktoken.Encoding, deltas: list[str]) -> None:
    text = ""
    for delta in deltas:
        text += delta
        encoding.encode_ordinary(text)


def waiting(deltas: list[str]) -> tuple[list[int], list[int]]:
    """After each delta, the characters held; for each delta, how many more came before it was covered."""
    retokenizer = Retokenizer()
    characters, delays = [], []
    open_deltas: deque[tuple[int, int]] = deque()
    received = 0
    for number, delta in enumerate(deltas):
        received += len(delta)
        open_deltas.append((number, received))
        retokenizer.feed(delta)
        characters.append(retokenizer.held)
        while open_deltas and open_deltas[0][1] <= received - retokenizer.held:
            delays.append(number - open_deltas.popleft()[0])
    return characters, delays


def spread(values: list[int]) -> str:
    ordered = sorted(values)
    return f"{statistics.mean(values):.2f} / {ordered[int(0.99 * (len(ordered) - 1))]} / {ordered[-1]}"


def row(name: str, text: str, arguments: argparse.Namespace, encoding: tiktoken.Encoding) -> list[str]:
    half = len(text) // 2
    source = random.Random(arguments.seed)
    known, unseen, whole = cut(text[:half], None, source), cut(text[half:], None, source), cut(text, None, source)
    stream = cut(text, arguments.deltas, source)

    def learn() -> None:
        forget()
        feed(known)

    fresh = least(arguments.rounds, lambda: feed(unseen), before=learn)
    warm = least(arguments.rounds, lambda: feed(stream))
    again = least(1, lambda: encode_again(encoding, stream))
    characters, delays = waiting(whole)
    return [
        f"{fresh / len(unseen):.1f} ({fresh / feed(unseen):.1f})",
        f"{warm / len(stream):.1f} ({warm / feed(stream):.1f})",
        f"{again / len(stream):.0f}",
        f"{again / warm:.0f}x",
        spread(characters),
        spread(delays),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deltas", type=int, default=2000, help="deltas of the stream that is timed warm")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    ranks = vocabulary.load().ranks()
    encoding = tiktoken.Encoding("bench", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    feed(["warm up"])
    speed = Table(title=f"Deltas of 3-5 characters, microseconds a delta (a token); {platform.machine()}, one core")
    for title in ("text", "unseen", "warm", "whole text again", "ratio to warm"):
        speed.add_column(title, justify="left" if title == "text" else "right")
    held = Table(title="Held back, mean / p99 / max")
    for title in ("text", "characters", "deltas waited"):
        held.add_column(title, justify="left" if title == "text" else "right")
    for name, text in track(TEXTS.items(), "texts", transient=True):
        measured = row(name, text, arguments, encoding)
        speed.add_row(name, *measured[:4])
        held.add_row(name, *measured[4:])
    console = Console()
    console.print(speed)
    console.print(held)
    console.print(
        "unseen: the second half of a text after the first, caches emptied before it. warm: the whole text again "
        f"and again, {arguments.deltas} deltas; beside it the same stream encoded anew at each delta.\n"
        f"Repeat it: python -m bench.retokenizer --deltas {arguments.deltas} --rounds {arguments.rounds} "
        f"--seed {arguments.seed}"
    )


if __name__ == "__main__":
    main()
