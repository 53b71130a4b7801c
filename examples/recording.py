"""`make recording` runs `weir demo` for real and draws its terminal: `python -m examples.recording FILE.svg`."""

import asyncio
import re
import sys
from io import StringIO
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.text import Text

from proxy.demo import run_conversations

COLUMNS = 100
LABEL_COLUMNS = 11  # "assistant  "
# rich names fonts of a host elsewhere, which a picture in a README never gets; these are on most machines.
FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


def redrawn(ansi: str, console: Console) -> None:
    """Print it again with long lines broken between words: the demo prints token by token, and terminals break them."""
    runs = re.findall(r"(\x1b\[[\d;]*m)?([^\x1b]+)(?:\x1b\[0m)?", ansi)
    # Neighbours of one style become one run: a picture would lose the space between two tokens.
    merged = [(style, "".join(text for _, text in run)) for style, run in groupby(runs, lambda run: run[0])]
    for line in Text.from_ansi("".join(f"{style}{text}\x1b[0m" for style, text in merged)).split("\n"):
        label, rest = line[:LABEL_COLUMNS], line[LABEL_COLUMNS:]
        for number, part in enumerate(rest.wrap(console, COLUMNS - LABEL_COLUMNS) or [rest]):
            console.print(label if number == 0 else " " * LABEL_COLUMNS, part, sep="")


def main() -> int:
    shown = Console(record=True, width=COLUMNS, highlight=False, force_terminal=True, color_system="truecolor")
    status = asyncio.run(run_conversations(shown))
    if status == 0:
        drawn = Console(record=True, width=COLUMNS, highlight=False, force_terminal=True, file=StringIO())
        redrawn(shown.export_text(styles=True), drawn)
        svg = re.sub(r"@font-face \{.*?\}\s*", "", drawn.export_svg(title="weir demo"), flags=re.DOTALL)
        svg = re.sub(r"Fira Code(, monospace)?", FONTS, svg)
        Path(sys.argv[1]).write_text(re.sub(r"terminal-\d+", "terminal", svg), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
