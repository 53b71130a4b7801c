"""`weir bench guard` from flags to figures, on a tiny guard with random weights."""

import json
import shlex

import pytest

from proxy.benchmark.command import command
from proxy.benchmark.sizes import Sizes
from proxy.cli import main
from proxy.settings import GuardSettings

TINY = ["bench", "guard", "--guard", "random-tiny", "--device", "cpu", "--threads", "1", "--no-process"]
SMALL = ["--streams", "2", "--chunks", "1", "--history", "10", "--histories", "10", "20"]


def test_tables_and_how_to_repeat_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, *SMALL, "--only", "tokens", "steps", "--dtype", "float32"]) == 0
    said = capsys.readouterr()
    for part in ("One more token", "re-feed", "2 x 1", "random-tiny@seed-0: hidden 64, 2 layers, float32, on cpu"):
        assert part in said.out
    repeat = said.out.splitlines()[-1].removeprefix("repeat: weir ")
    assert "--streams 2 --chunks 1 --history 10" in repeat
    assert main(shlex.split(repeat)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"repeat: weir {repeat}"


def test_json_on_standard_output_is_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, *SMALL, "--only", "tokens", "--json", "--dtype", "int8"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["history"] for row in found["tokens"]] == [10, 20]
    assert found["about"]["repeat"].startswith("weir bench guard --guard random-tiny")
    assert found["about"]["dtype"] == "int8"
    assert "--dtype int8" in found["about"]["repeat"]
    assert found["about"]["cores"] >= 1
    assert found["about"]["engine_at_the_door"] == "thread"


def test_a_command_names_what_settings_said() -> None:
    settings = GuardSettings(model="org/guard", revision="abc", device="cuda:1")
    said = command(Sizes(), settings, {"threads": 3, "dtype": "bfloat16"})
    assert said.startswith("weir bench guard --guard org/guard --guard-revision abc --device cuda:1 --dtype bfloat16")
    assert said.endswith("--contexts 512 1024 2048 4096 8000 --seconds 10 --seeds 2")


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--guard", "random-huge"], 1, "There are no figures: random shape 'huge' is not one of tiny, 0.6b"),
        (["--guard", "nowhere"], 1, "There are no figures: guard 'nowhere': no such folder"),
        (["--contexts", "40000"], 2, "40601 tokens are needed; the guard's window holds 32768."),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(
    arguments: list[str], status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TINY, *arguments]) == status
    assert capsys.readouterr().err.startswith(sentence)
