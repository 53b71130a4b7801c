"""`weir eval` from flags to files, on a small guard with random weights."""

import json
import sys
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.evaluation.command import NO_MATPLOTLIB, set_name
from tests.guard.checkpoints import small_checkpoint

ROWS = [
    {"prompt": "Hi", "response": "Hello there.", "prompt_risk": "Safe", "response_risk": "Safe"},
    {"message": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well."}], "label": "Unsafe",
     "unsafe_start_index": 14, "unsafe_end_index": 15},
    {"messages": [{"role": "user", "content": "Hello?"}], "label": "Unsafe"},
]  # fmt: skip


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = small_checkpoint(tmp_path_factory.mktemp("guards") / "small", vocab_size=151936)
    return ["--guard", str(folder), "--device", "cpu", "--threads", "1"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return "mixed.jsonl"


def test_a_report_an_item_a_line_and_a_picture(guard: list[str], data: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval", "--data", data, *guard, "--out", "out", "--json", "report.json", "--picture", "picture.png"]
    assert main(arguments) == 0
    report = json.loads(Path("report.json").read_text())
    assert report == json.loads(Path("out/report.json").read_text())
    assert [(one["kind"], one["size"], one["unsafe"]) for one in report["sets"]] == [
        ("prompts", 2, 1),
        ("answers", 2, 1),
    ]
    assert report["sets"][1]["timing"]["strict"]["annotated"] == 1
    assert report["guard"].startswith("small@")
    lines = [json.loads(line) for line in Path("out/items.jsonl").read_text().splitlines()]
    assert [line["line"] for line in lines] == [1, 2, 3]
    assert Path("picture.png").stat().st_size > 1000
    assert Path("out/picture.png").is_file()
    said = capsys.readouterr().out
    assert "mixed: 2 prompts, 1 of them unsafe" in said
    assert "tokens in" in said


def test_json_on_standard_output_is_json_and_nothing_else(
    guard: list[str], data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--data", data, data, *guard, "--json", "-", "--read-end", "--streams", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["sets"]) == 4
    assert report["rule"]["reads_end_of_turn"] is True


def test_transforms_are_measured_on_what_is_judged_rightly(
    guard: list[str], data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval", "--data", data, *guard, "--transforms", "--sample", "2", "--mode", "strict"]
    assert main([*arguments, "--json", "report.json"]) == 0
    rows = json.loads(Path("report.json").read_text())["robustness"]
    assert {row["transform"] for row in rows} >= {"leet", "tag characters"}
    assert all(row["unsafe"]["size"] + row["safe"]["size"] > 0 for row in rows)
    assert "judged rightly as they were" in " ".join(capsys.readouterr().out.split())


def test_a_bad_line_is_2_and_names_file_and_line(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Path(data).open("a") as file:
        file.write("{}\n")
    assert main(["eval", "--data", data]) == 2
    assert capsys.readouterr().err.startswith("mixed.jsonl, line 4: has neither")


def test_no_guard_is_1(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--data", data, "--guard", "./none"]) == 1
    assert "There are no verdicts: guard './none'" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_1(guard: list[str], data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--data", data, *guard, "--out", data]) == 1
    assert "mixed.jsonl cannot be written" in capsys.readouterr().err


def test_a_picture_without_matplotlib_is_a_sentence_before_any_work(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["eval", "--data", data, "--picture", "x.png"]) == 2
    assert capsys.readouterr().err == NO_MATPLOTLIB + "\n"


@pytest.mark.parametrize(
    "arguments", [[], ["--data"], ["--data", "x", "--streams", "0"], ["--data", "x", "--mode", "any"]]
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["eval", *arguments])
    assert ended.value.code == 2


def test_sets_are_named_after_their_files() -> None:
    assert [set_name(Path(name)) for name in ("a/x.jsonl.gz", "y.jsonl", "z.json")] == ["x", "y", "z"]
