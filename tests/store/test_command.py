"""`weir records` as a shell runs it."""

import csv
import io
import json
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.record_settings import RecordSettings
from tests.store.records import KINDS, cut, ids, opened, record, settings_for, store_with


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordSettings:
    """Of a store with four records, as the environment names it."""
    monkeypatch.chdir(tmp_path)
    settings = settings_for(request.param, tmp_path)
    opened(settings, [record(1), cut(2, model="=SUM(1)"), cut(3, "Political"), record(4)]).close()
    if settings.url is not None:
        monkeypatch.setenv("WEIR_RECORDS__URL", settings.url.get_secret_value())
    else:
        monkeypatch.setenv("WEIR_RECORDS__FILE", str(settings.file))
    return settings


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(["records", *arguments]) == status
    out, err = capsys.readouterr()
    assert (err == "") is (status == 0)
    return out if status == 0 else err


@pytest.mark.usefixtures("settings")
def test_list_shows_the_newest_first_and_filters(capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*arguments: str) -> list[int]:
        return ids([json.loads(line) for line in said(capsys, "list", "--json", *arguments).splitlines()])

    assert listed() == [4, 3, 2, 1]
    assert listed("--limit", "2") == [4, 3]
    assert listed("--outcome", "cut") == [3, 2]
    assert listed("--category", "Political") == [3]
    assert listed("--model", "=sum*") == [2]
    assert listed("--since", "1h") == []
    assert listed("--until", "1h", "--since", "2020-01-01") == [4, 3, 2, 1]
    assert listed("--key", "someone") == []
    assert said(capsys, "list").count("\n") == 5


@pytest.mark.usefixtures("settings")
def test_show_takes_an_id_or_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    whole = f"{2:032x}"
    assert "outcome\tcut\n" in said(capsys, "show", whole)
    assert json.loads(said(capsys, "show", "--json", f"weir-{whole}"))["outcome"] == "cut"
    assert "no record" in said(capsys, "show", "0", status=2)
    assert "no record" in said(capsys, "show", "f", status=2)


@pytest.mark.usefixtures("settings")
def test_export_writes_the_oldest_first_as_lines_or_for_a_spreadsheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ids(json.loads(line) for line in said(capsys, "export").splitlines()) == [1, 2, 3, 4]
    rows = list(csv.DictReader(io.StringIO(said(capsys, "export", "--format", "csv", "--outcome", "cut"))))
    assert [row["category"] for row in rows] == ["Violent", "Political"]
    assert rows[0]["model"] == "'=SUM(1)"
    target = tmp_path / "out.csv"
    assert said(capsys, "export", "--format", "csv", "--output", str(target)) == ""
    assert len(target.read_text().splitlines()) == 5
    assert "cannot be written" in said(capsys, "export", "--output", str(tmp_path), status=1)


def test_without_records_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said_of_none = said(capsys, "list", status=2)
    assert "[records] file" in said_of_none
    assert "[records] url" in said_of_none
    assert "not there" in said(capsys, "list", "--records-file", "none.db", status=2)
    Path("broken.db").write_bytes(b"x" * 5000)
    assert "cannot be read" in said(capsys, "list", "--records-file", "broken.db", status=1)


def test_it_reads_a_file_while_another_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_with(tmp_path / "r.db", [record(5)])
    store._ask("BEGIN IMMEDIATE")
    assert said(capsys, "list", "--records-file", str(tmp_path / "r.db")).count("\n") == 2
    store.close()


def test_a_url_that_cannot_be_used_is_told_without_its_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("psycopg", reason='no PostgreSQL driver: pip install "weir-proxy[postgres]"')
    monkeypatch.chdir(tmp_path)
    urls = ["postgresql://u:hunter2hunter2@127.0.0.1:1/db", "postgresql://u:hunter2hunter2%zz@h/db", "mysql://hunter2"]
    for url, status in zip(urls, (1, 1, 2), strict=True):
        monkeypatch.setenv("WEIR_RECORDS__URL", url)
        assert "hunter2" not in said(capsys, "list", status=status)
    monkeypatch.setenv("WEIR_RECORDS__URL", urls[0])
    assert "one place" in said(capsys, "list", "--records-file", "r.db", status=2)
