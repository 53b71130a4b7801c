"""The whole fault matrix: `make faults`, or `make faults ARGS='--seeds 20'`. Exits with 1 where anything is wrong."""

import argparse
import asyncio
import collections
import logging
import random
import sys
import time

from tests.faults.matrix import Result, cells, run_all


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="runs of each cell")
    parser.add_argument("--at-once", type=int, default=6, help="cells side by side")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    given = parser.parse_args()
    wanted = [cell for cell in cells(given.seeds) if given.only in str(cell)]
    random.Random(0).shuffle(wanted)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # of the upstream, on which everybody hangs up
    begin, results = time.monotonic(), []

    def report(result: Result) -> None:
        results.append(result)
        if result.problems:
            print(f"\r{result.cell}: {'; '.join(result.problems)}", flush=True)
        if sys.stderr.isatty() or len(results) % 50 == 0:
            print(f"\r{len(results)} of {len(wanted)} cells", end="", file=sys.stderr, flush=True)

    asyncio.run(run_all(wanted, report, given.at_once))
    bad = [result for result in results if result.problems]
    ends = collections.Counter(result.outcome for result in results)
    leaks = {mode: max((r.leak for r in results if r.cell.mode == mode), default=0) for mode in ("hold", "window")}
    print(
        f"\n{len(results)} cells in {time.monotonic() - begin:.0f} s: " + ", ".join(f"{n} {e}" for e, n in ends.items())
    )
    print(f"largest leak: hold {leaks['hold']}, window {leaks['window']} characters (6 are allowed)")
    slowest = max(results, key=lambda result: result.seconds)
    print(f"slowest: {slowest.seconds:.1f} s, {slowest.cell}; cells with a problem: {len(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
