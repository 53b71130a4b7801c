"""The guard's engine beside the two other ways of running Qwen3Guard-Stream token by token.

    python -m bench.guard                     # the embedded guard
    python -m bench.guard --model FOLDER      # any other; --json for machines

re-feed: the model card's algorithm, which reads the whole text again for every token.
cache:   transformers with one DynamicCache a stream, one stream at a time.
weir:    this engine; at the door means through `service.LocalGuard`, asyncio and all.
All in one run, in turns, on the same threads; medians. Needs the `dev` extra (transformers).
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import DynamicCache, Qwen3Config, Qwen3Model

from proxy.guard.commands import Close, Feed, Open
from proxy.guard.engine import Engine
from proxy.guard.loader import LoadedGuard, load_guard
from proxy.guard.runner import Runner
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GuardSettings
from proxy.risk import Role

HISTORIES = (64, 4096)
CHUNKS = (1, 4, 8)
ROUNDS = 15


@dataclass(frozen=True)
class TokenTime:
    """Milliseconds for one more token of one stream."""

    history: int
    weir: float
    cache: float
    refeed: float


@dataclass(frozen=True)
class Throughput:
    streams: int
    chunk: int
    tokens_a_second: float
    tokens_a_core_second: float  # of CPU time of the whole process: what a busy machine does not distort
    lag_p50_ms: float
    lag_p95_ms: float


def backbone(loaded: LoadedGuard) -> Qwen3Model:
    """transformers' model in the same shape. Its weights are random: only its time is looked at."""
    shape = loaded.model.architecture
    config = Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, max_position_embeddings=shape.window, rms_norm_eps=shape.norm_eps,
    )  # fmt: skip
    model = Qwen3Model(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(loaded.model.dtype)
    model.train(mode=False)
    return model


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def random_ids(count: int) -> list[int]:
    ids: list[int] = torch.randint(0, 100_000, (count,)).tolist()
    return ids


class OneStream:
    """The engine with one stream, without a service: what a token costs there."""

    def __init__(self, loaded: LoadedGuard, ids: list[int]) -> None:
        runner = Runner(loaded.model)
        window = min(loaded.info.window, 2 * len(ids) + 1024)
        self._engine = Engine(runner, window=window, budget_bytes=4 * window * runner.kv_bytes_per_token)
        self._position = len(ids)
        self._run(Open(1, 1, ids, [], Role.USER, ""))

    def feed(self) -> None:
        self._run(Feed(1, 1, self._position, [7]))
        self._position += 1

    def close(self) -> None:
        self._engine.apply(Close(1), 0.0)

    def _run(self, command: Open | Feed) -> None:
        self._engine.apply(command, 0.0)
        while self._engine.has_work:
            self._engine.step(0.0)


@torch.inference_mode()
def time_tokens(loaded: LoadedGuard, reference: Qwen3Model, history: int) -> TokenTime:
    ids = random_ids(history)
    stream = OneStream(loaded, ids)
    cache = DynamicCache(config=reference.config)
    whole, one = torch.tensor([ids]), torch.tensor([[7]])
    reference(whole, past_key_values=cache)
    times: dict[str, list[float]] = {"weir": [], "cache": [], "refeed": []}
    for _ in range(ROUNDS):
        # A few in a row each: the first one after the other way's finds its memory cold.
        times["weir"] += [milliseconds(stream.feed) for _ in range(4)][1:]
        times["cache"] += [milliseconds(lambda: reference(one, past_key_values=cache)) for _ in range(4)][1:]
    for _ in range(ROUNDS // 3):
        times["refeed"].append(milliseconds(lambda: reference(torch.cat((whole, one), dim=1))))
    return TokenTime(history, **{name: statistics.median(found) for name, found in times.items()})


async def time_streams(guard: LocalGuard, streams: int, chunk: int, tokens: int) -> Throughput:
    """Every stream feeds its next chunk when the last one is judged."""
    opened = [(await guard.open(random_ids(64), owner=str(number % 4)))[0] for number in range(streams)]
    lags: list[float] = []

    async def talk(number: int) -> None:
        stream = opened[number]
        for _ in range(tokens // chunk):
            start = time.perf_counter()
            await stream.classify(stream.position, random_chunk)
            lags.append((time.perf_counter() - start) * 1e3)

    random_chunk = random_ids(chunk)
    start, start_cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(talk(number) for number in range(streams)))
    seconds, core_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    for stream in opened:
        await stream.close()
    lags.sort()
    total = streams * (tokens // chunk) * chunk
    return Throughput(
        streams, chunk, total / seconds, total / core_seconds, lags[len(lags) // 2], lags[len(lags) * 95 // 100]
    )


async def time_door(loaded: LoadedGuard, threads: int) -> list[Throughput]:
    guard = LocalGuard(loaded, GuardSettings(threads=threads))
    try:
        await time_streams(guard, 64, 4, 32)  # warm
        found = [await time_streams(guard, 1, 1, 300)]
        for chunk in CHUNKS:
            best = [await time_streams(guard, 64, chunk, 128) for _ in range(3)]
            found.append(sorted(best, key=lambda one: one.tokens_a_second)[1])
        return found
    finally:
        await guard.close()


def report(loaded: LoadedGuard, tokens: list[TokenTime], door: list[Throughput]) -> None:
    shape = loaded.model.architecture
    print(f"guard {loaded.info.model}: hidden {shape.hidden}, {shape.layers} layers, {loaded.model.dtype}")
    print(f"\n{'one more token, ms':>20} {'weir':>9} {'cache':>9} {'re-feed':>9}   weir is faster by")
    for row in tokens:
        ratios = f"{row.cache / row.weir:.1f}x (cache), {row.refeed / row.weir:.1f}x (re-feed)"
        print(f"{f'history {row.history}':>20} {row.weir:9.2f} {row.cache:9.2f} {row.refeed:9.2f}   {ratios}")
    first, last = tokens[0], tokens[-1]
    growth = (last.weir / first.weir, last.cache / first.cache, last.refeed / first.refeed)
    print(f"{'growth':>20} " + " ".join(f"{ratio:8.1f}x" for ratio in growth))
    header = f"{'tokens/s':>9} {'per core':>9} {'p50 ms':>9} {'p95 ms':>9}"
    print(f"\n{'at the door':>20} {header}   beside one stream at a time, history 64")
    for speed in door:
        cache, refeed = (speed.tokens_a_second * alone / 1e3 for alone in (first.cache, first.refeed))
        label = f"{speed.streams} x {speed.chunk} tokens"
        rates = f"{speed.tokens_a_second:9.0f} {speed.tokens_a_core_second:9.0f}"
        lags = f"{speed.lag_p50_ms:9.2f} {speed.lag_p95_ms:9.2f}"
        print(f"{label:>20} {rates} {lags}   {cache:.1f}x (cache), {refeed:.1f}x (re-feed)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="embedded, a folder or a hub id")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16")
    parser.add_argument("--threads", type=int, default=1, help="for every way alike")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loaded = load_guard(options.model, dtype=options.dtype)
    reference = backbone(loaded)
    tokens = [time_tokens(loaded, reference, history) for history in HISTORIES]
    door = asyncio.run(time_door(loaded, options.threads))
    if options.json:
        found: dict[str, Any] = {"model": loaded.info.model, "threads": options.threads}
        print(json.dumps(found | {"token_ms": [asdict(row) for row in tokens], "door": [asdict(row) for row in door]}))
        return
    report(loaded, tokens, door)
    chosen = f"--model {options.model} --dtype {options.dtype} --threads {options.threads}"
    print(f"\nrepeat: python -m bench.guard {chosen}")


if __name__ == "__main__":
    main()
