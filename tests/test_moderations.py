"""Several conversations: each as it would be judged alone, told in order, and the worst exit status."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.moderate import BadConversation
from proxy.moderations import entries, run
from proxy.settings import GuardSettings, Settings
from tests.guard.checkpoints import small_checkpoint

QWEN_VOCABULARY = 151_936


def chat(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = small_checkpoint(tmp_path_factory.mktemp("guards") / "small", vocab_size=QWEN_VOCABULARY)
    return Settings(guard=GuardSettings(model=str(folder), device="cpu", threads=1))


def alike(one: Any, other: Any) -> bool:
    """Equal but for the last digit of a probability, which may know of the batch."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < 2e-4
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(value, other[name]) for name, value in one.items())
    return bool(one == other)


def lines_of(captured: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.splitlines()]


def test_lists_lines_and_files_are_judged_at_once_and_told_in_order(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chats = [chat(f"Question {n}?", "Word " * (1 + 37 * n % 50)) for n in range(12)]
    one, many, listed = tmp_path / "one.json", tmp_path / "many.jsonl", tmp_path / "list.json"
    one.write_text(json.dumps(chats[0], indent=2))
    many.write_text("\n".join(map(json.dumps, chats[1:8])) + "\n\n")
    listed.write_text(json.dumps(chats[8:]))
    files = [str(one), str(many), str(listed)]
    status = run(files, settings, as_json=False, streams=3)
    told = lines_of(capsys.readouterr().out)
    assert [line.pop("source") for line in told] == [
        str(one),
        *(f"{many}:{number}" for number in range(1, 8)),
        *(f"{listed}[{number}]" for number in range(4)),
    ]
    assert status == (3 if any(line["flagged"] for line in told) else 0)
    # The same by itself: only the last digits may know of the others.
    for line, text in zip(told[:3], chats, strict=False):
        one.write_text(json.dumps(text))
        run([str(one)], settings, as_json=True, streams=1)
        assert alike(json.loads(capsys.readouterr().out), line)


def test_one_conversation_is_shown_as_ever(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.dumps(chat("Hi", "Hello there"), indent=1)
    (tmp_path / "chat.json").write_text(raw)
    run([str(tmp_path / "chat.json")], settings, as_json=False, streams=4)
    assert "prompt" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw.encode())))
    run(["-"], settings, as_json=True, streams=4)
    assert "guard" in json.loads(capsys.readouterr().out)


def test_what_cannot_be_judged_is_a_line_and_the_worst_status_counts(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text("\n".join([json.dumps(chat("Hi", "Hello")), "{", "[]", '{"messages":[]}', json.dumps(chat("Hi"))]))
    assert run([str(file), str(tmp_path / "none.json")], settings, as_json=False, streams=2) == 2
    told = lines_of(capsys.readouterr().out)
    assert ["error" in line for line in told] == [False, True, True, True, False, True]
    assert told[5]["source"].endswith("none.json")
    assert "cannot be read" in told[5]["error"]


def test_a_guard_that_cannot_be_had_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps(chat("Hi")) + "\n" + json.dumps(chat("Hi")))
    nowhere = Settings(guard=GuardSettings(model=str(tmp_path / "no-guard")))
    assert run([str(file)], nowhere, as_json=False, streams=2) == 1
    assert capsys.readouterr().err.startswith("There is no verdict: ")


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.json", '{"messages": []}', [""]),
        ("a.json", '{\n"messages": []\n}', [""]),
        ("a.json", '{"messages": []}\n{"messages": []}\n', [":1", ":2"]),
        ("a.jsonl", '{"messages": []}', [":1"]),
        ("a.json", ' [{"messages": []}, 1]', ["[0]", "[1]"]),
        ("a.json", "[]", []),
        ("a.json", "[1", [""]),
        ("a.json", "no\njson", [""]),
    ],
)
def test_what_a_file_holds(tmp_path: Path, name: str, text: str, names: list[str]) -> None:
    file = tmp_path / name
    file.write_text(text)
    found = list(entries(str(file), Settings()))
    assert [entry.name for entry in found] == [f"{file}{ending}" for ending in names]
    assert any(isinstance(entry.body, BadConversation) for entry in found) is (text in ("[1", ' [{"messages": []}, 1]'))
