"""What people read: numbers, ratios, marks, and how to repeat it."""

import io

from rich.console import Console

from proxy.benchmark.figures import Capacity, DoorSpeed, Figures, StepTime, TokenTime
from proxy.benchmark.report import remarks, tables

ABOUT = {
    "weir": "0.1.0", "guard": "tiny@seed-0", "shape": "hidden 64, 2 layers", "dtype": "float32", "device": "cpu (X)",
    "threads": 1, "cores": 2, "load_before": 0.5, "python": "3.11", "torch": "2.13", "transformers": None,
    "engine_at_the_door": "thread",
}  # fmt: skip


def shown(figures: Figures, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    for table in tables(figures):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables_fit_80_columns_and_say_ratios() -> None:
    figures = Figures(
        tokens=[
            TokenTime(64, {"weir": 1.0, "cache": 2.0, "re-feed": 4.0}, {"weir": 0.5, "cache": 0.7, "re-feed": 3.0}),
            TokenTime(
                4096, {"weir": 2.0, "cache": 5.0, "re-feed": 400.0}, {"weir": 1.0, "cache": 3.5, "re-feed": 300.0}
            ),
        ],
        steps=[StepTime(64, 8, 512, 10.0, 12.0, 15.5, 51200.4, 52300.0)],
        door=[DoorSpeed(64, 8, 20000.0, 11000.0, 20.0, 25.0, 30.0)],
        capacity=[
            Capacity(512, "weir", 300, 19.5, "lag"),
            Capacity(512, "cache", 3, 18.0, "memory"),
            Capacity(8000, "weir", 40, 19.0, "search"),
        ],
    )
    said = shown(figures)
    for part in (
        "2.00 (2.0x)",
        "400.00 (200x)",
        "300.00 (300x)",
        "100x",
        "51,200",
        "52,300",
        "15.50",
        "20,000",
        "11,000",
        "40x",
        "80x",
    ):
        assert part in said
    for part in ("300 (19.5 ms)", "3* (18.0 ms)", "40+ (19.0 ms)"):
        assert part in said
    assert "…" not in said


def test_what_was_not_measured_is_not_shown() -> None:
    assert shown(Figures()) == ""
    said = shown(Figures(door=[DoorSpeed(1, 1, 500.0, 400.0, 2.0, 3.0, 4.0)]))
    assert "500" in said
    assert "last columns" not in said


def test_remarks_name_the_machine_the_gaps_and_the_command() -> None:
    lines = list(remarks(Figures(ABOUT, skipped=["no transformers"]), "weir bench guard --quick"))
    assert lines[0] == "guard tiny@seed-0: hidden 64, 2 layers, float32, on cpu (X)"
    assert lines[1] == "weir 0.1.0, python 3.11, torch 2.13; 2 cores, 1 threads, load before 0.5"
    assert lines[2] == "at the door: the engine in a thread"
    assert any("others were at work" in line for line in remarks(Figures(ABOUT | {"load_before": 1.5}), ""))
    assert lines[3:] == ["no transformers", "repeat: weir bench guard --quick"]
