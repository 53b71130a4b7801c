"""`weir records` as a shell runs it."""

import csv
import io
import json
from pathlib import Path

import pytest

from proxy.cli import main
from tests.store.records import cut, ids, record, store_with


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "r.db"
    store_with(file, [record(1), cut(2, model="=SUM(1)"), cut(3, "Political"), record(4)]).close()
    return file


def said(capsys: pytest.CaptureFixture[str], file: Path, *arguments: str, status: int = 0) -> str:
    assert main(["records", *arguments, "--records-file", str(file)]) == status
    out, err = capsys.readouterr()
    assert (err == "") is (status == 0)
    return out if status == 0 else err


def test_list_shows_the_newest_first_and_filters(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*arguments: str) -> list[int]:
        return ids([json.loads(line) for line in said(capsys, file, "list", "--json", *arguments).splitlines()])

    assert listed() == [4, 3, 2, 1]
    assert listed("--limit", "2") == [4, 3]
    assert listed("--outcome", "cut") == [3, 2]
    assert listed("--category", "Political") == [3]
    assert listed("--model", "=sum*") == [2]
    assert listed("--since", "1h") == []
    assert listed("--until", "1h", "--since", "2020-01-01") == [4, 3, 2, 1]
    assert listed("--key", "someone") == []
    assert said(capsys, file, "list").count("\n") == 5


def test_show_takes_an_id_or_its_beginning(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = f"{2:032x}"
    assert "outcome\tcut\n" in said(capsys, file, "show", whole)
    assert json.loads(said(capsys, file, "show", "--json", f"weir-{whole}"))["outcome"] == "cut"
    assert "no record" in said(capsys, file, "show", "0", status=2)
    assert "no record" in said(capsys, file, "show", "f", status=2)


def test_export_writes_the_oldest_first_as_lines_or_for_a_spreadsheet(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ids(json.loads(line) for line in said(capsys, file, "export").splitlines()) == [1, 2, 3, 4]
    rows = list(csv.DictReader(io.StringIO(said(capsys, file, "export", "--format", "csv", "--outcome", "cut"))))
    assert [row["category"] for row in rows] == ["Violent", "Political"]
    assert rows[0]["model"] == "'=SUM(1)"
    target = tmp_path / "out.csv"
    assert said(capsys, file, "export", "--format", "csv", "--output", str(target)) == ""
    assert len(target.read_text().splitlines()) == 5
    assert "cannot be written" in said(capsys, file, "export", "--output", str(tmp_path), status=1)


def test_without_records_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["records", "list"]) == 2
    assert "[records] file" in capsys.readouterr().err
    assert "not there" in said(capsys, tmp_path / "none.db", "list", status=2)
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"x" * 5000)
    assert "cannot be read" in said(capsys, broken, "list", status=1)


def test_it_reads_while_another_writes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_with(file, [record(5)])
    store._ask("BEGIN IMMEDIATE")
    assert said(capsys, file, "list").count("\n") == 6
    store.close()
