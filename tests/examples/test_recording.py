"""The picture at the top of the README: drawn from a real run, with nothing lost and nothing fetched from elsewhere."""

import re
from io import StringIO
from pathlib import Path

from rich.console import Console

from examples.recording import COLUMNS, LABEL_COLUMNS, redrawn
from proxy.demo import CONVERSATIONS

PICTURE = Path(__file__).parent.parent.parent / "docs" / "demo.svg"


def test_long_lines_break_between_words_and_keep_every_one_of_them() -> None:
    words = ["Sunlight", *(f" word{number}" for number in range(40)), "."]
    ansi = "\x1b[1massistant  \x1b[0m" + "".join(f"\x1b[32m{word}\x1b[0m" for word in words) + "\nnext\n"
    console = Console(width=COLUMNS, file=StringIO(), record=True, force_terminal=True, highlight=False)
    redrawn(ansi, console)
    lines = [line.rstrip() for line in console.export_text(clear=False).splitlines() if line.strip()]
    assert all(len(line) <= COLUMNS for line in lines)
    assert lines[0].startswith("assistant  Sunlight word0 ")
    assert lines[1].startswith(" " * LABEL_COLUMNS + "word")
    assert "".join("".join(lines[:-1]).removeprefix("assistant").split()) == "".join("".join(words).split())
    assert lines[-1] == "next"
    assert "\x1b[32m" in console.export_text(styles=True)


def test_the_picture_shows_the_three_outcomes_and_names_no_host() -> None:
    svg = PICTURE.read_text()
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", svg).replace("&#160;", " "))
    for one in CONVERSATIONS:
        assert one.question in shown
    assert "cut at character" in shown
    assert "the prompt is blocked: Unsafe" in shown
    assert not re.search(r"url\(.?http|href=|<script|@import", svg)
