"""How long a question waits on vLLM, beside our own engine, turn by turn in one run.

    make bench-vllm [ARGS='--kv-bytes 67108864 --rounds 5']

The embedded guard on this machine's CPU, both engines on the cores that they choose; a question is four tokens.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from proxy.export import export
from proxy.guard.answer import classify
from proxy.guard.process import Config, VllmGuard, start_process_guard
from proxy.guard.protocol import Guard
from proxy.guard.settings import GuardSettings

STREAMS = (1, 8, 32)
CONTEXTS = (128, 1024)
QUESTIONS, QUESTION_TOKENS = 10, 4
WINDOW = 2048
# Every guard of the family has at least these.
VOCABULARY = 150_000
# For an engine that starts, and for questions on a busy machine.
PATIENCE_SECONDS = 600.0


async def seconds_of(guard: Guard, streams: int, context: int, vocabulary: int) -> float:
    """A question's, on average, of so many streams that all ask at once behind so many tokens."""

    async def talk(seed: int) -> float:
        dice = random.Random(seed)
        ids = [dice.randrange(vocabulary) for _ in range(context + QUESTIONS * QUESTION_TOKENS)]
        stream, _ = await guard.open(ids[:context])
        started = time.perf_counter()
        for at in range(context, len(ids), QUESTION_TOKENS):
            await classify(stream, at, ids[at : at + QUESTION_TOKENS])
        seconds = time.perf_counter() - started
        await stream.close()
        return seconds

    return sum(await asyncio.gather(*map(talk, range(streams)))) / streams / QUESTIONS


async def beside(guards: Sequence[Guard], streams: int, context: int, rounds: int, vocabulary: int) -> list[float]:
    """The seconds of each guard in the round whose ratio is the middle one."""
    found = [[await seconds_of(guard, streams, context, vocabulary) for guard in guards] for _ in range(rounds)]
    return sorted(found, key=lambda one: one[0] / one[1])[rounds // 2]


async def run(folder: Path, rounds: int, kv_bytes: int) -> None:
    calm = {"verdict_seconds": PATIENCE_SECONDS, "open_seconds": PATIENCE_SECONDS, "health_seconds": PATIENCE_SECONDS}
    ours = Config(str(folder), GuardSettings(window=WINDOW, kv_bytes=kv_bytes, **calm))  # type: ignore[arg-type]
    guards = [
        await start_process_guard(msgspec.structs.replace(ours, vllm={"enforce_eager": True}), VllmGuard),
        await start_process_guard(ours),
    ]
    try:
        print("streams  context   vLLM, ms   ours, ms   ratio")
        for streams in STREAMS:
            for context in CONTEXTS:
                its, own = await beside(guards, streams, context, rounds, VOCABULARY)
                print(f"{streams:7}  {context:7}   {its * 1e3:8.1f}   {own * 1e3:8.1f}   {its / own:5.1f}", flush=True)
    finally:
        for guard in guards:
            await guard.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kv-bytes", type=int, default=512 << 20, help="of each engine's cache")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        export(Path(folder) / "embedded", force=False)
        asyncio.run(run(Path(folder) / "embedded", arguments.rounds, arguments.kv_bytes))


if __name__ == "__main__":
    main()
