"""A process that looks, as a script: `python -m tests.guard.looker`, as `proxy.guard.cluster` is run.

The question's address is a folder: each look tells what its file `seen` says, and dies where it says "die".
"""

import os
import select
import sys
from pathlib import Path

import msgspec

from proxy.guard.places import Question


def main() -> int:
    question = msgspec.json.decode(sys.stdin.buffer.readline(), type=Question)
    folder = Path(question.address)
    with (folder / "starts").open("a") as starts:
        starts.write(f"{question.fleet}\n")
    while True:
        said = (folder / "seen").read_text()
        if said == "die":
            return 1
        print(said, flush=True)
        if select.select([0], [], [], 0.1)[0] and not os.read(0, 4096):
            return 0


if __name__ == "__main__":
    sys.exit(main())
