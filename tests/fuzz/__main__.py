"""Mutate the corpus for a while: `make fuzz SECONDS=600`. What breaks something is kept in the corpus, and told.

Exits with 1 where anything broke. The same seed tries the same inputs.
"""

import argparse
import asyncio
import logging
import random
import sys
import time
from collections import Counter

from tests.driver import WORDS, answer
from tests.fakes import ScriptedUpstream
from tests.fuzz import inputs
from tests.fuzz.http import check_http
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS
from tests.servers import weir

HTTP = "http"
# One input that takes longer is as bad as one that crashes.
SLOW_SECONDS = 5.0


class Fuzz:
    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._corpora: dict[str, list[bytes]] = {}
        self.tried: Counter[str] = Counter()
        self.broken: list[str] = []

    def next(self, target: str) -> bytes:
        known = self._corpora.setdefault(target, list(inputs.of(target).values()))
        return mutate(self._rng, known)

    def try_one(self, target: str) -> None:
        data, begin = self.next(target), time.monotonic()
        self.tried[target] += 1
        try:
            TARGETS[target](data)
        except Exception as exc:
            self._keep(target, data, exc)
        if time.monotonic() - begin > SLOW_SECONDS:
            self._keep(target, data, TimeoutError(f"more than {SLOW_SECONDS} s"))

    async def try_http(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        async with weir(ScriptedUpstream(answer(WORDS))) as server:
            while time.monotonic() < end:
                data = self.next(HTTP)
                self.tried[HTTP] += 1
                try:
                    await check_http(server, data)
                except Exception as exc:
                    self._keep(HTTP, data, exc)

    def _keep(self, target: str, data: bytes, exc: Exception) -> None:
        path = inputs.keep(target, data)
        self.broken.append(f"{target}: {type(exc).__name__}: {str(exc)[:200]} ({path})")
        print(self.broken[-1], flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", nargs="+", choices=[*TARGETS, HTTP], default=[*TARGETS, HTTP])
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    fuzz, share = Fuzz(given.seed), given.seconds / len(given.only)
    print(f"seed {given.seed}, {share:.0f} s for each of {', '.join(given.only)}", flush=True)
    for target in given.only:
        if target != HTTP:  # tables are built at the first use
            TARGETS[target](b"warm up")
        if target == HTTP:
            asyncio.run(fuzz.try_http(share))
        else:
            end = time.monotonic() + share
            while time.monotonic() < end:
                fuzz.try_one(target)
        print(f"{target}: {fuzz.tried[target]} inputs", file=sys.stderr, flush=True)
    print(f"{fuzz.tried.total()} inputs, {len(fuzz.broken)} broke something")
    return 1 if fuzz.broken else 0


if __name__ == "__main__":
    sys.exit(main())
