"""Every command of docs/records.md runs, and its settings are settings."""

import re
import shlex
import time
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.config import load_settings
from proxy.store import writer
from tests.store.records import cut, record, store_with

PAGE = (Path(__file__).parent.parent.parent / "docs" / "records.md").read_text(encoding="utf-8")
COMMANDS = [line.partition("#")[0].strip() for line in PAGE.splitlines() if line.startswith("weir records")]
TABLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIR_RECORDS__FILE", "records.db")
    store_with(tmp_path / "records.db", [record(1), cut(2, started=time.time(), model="gpt-4")]).close()
    arguments = shlex.split(command.replace("weir-ID", f"weir-{2:032x}").partition(">")[0])
    assert main(arguments[1:]) == 0
    out, err = capsys.readouterr()
    shown = out or (tmp_path / "violent.csv").read_text(encoding="utf-8")
    assert "gpt-4" in shown
    assert err == ""


def test_the_settings_are_settings(tmp_path: Path) -> None:
    assert len(COMMANDS) == 7
    assert len(TABLES) == 3
    for table in TABLES:
        file = tmp_path / "weir.toml"
        file.write_text(table)
        load_settings(file, environ={})


def test_the_page_tells_the_limits_that_hold() -> None:
    assert f"at most {writer.MAX_QUEUED:,} records or {writer.MAX_QUEUED_BYTES >> 20} MiB" in PAGE
    postgres = pytest.importorskip("proxy.store.postgres", exc_type=ImportError)
    assert f"given up after {postgres.STATEMENT_SECONDS} s" in PAGE
    assert f"falls silent after {postgres.SILENCE_SECONDS} s" in PAGE
    assert f"{postgres.PRUNE_ROWS:,} records a transaction" in PAGE
    assert f"starts without it, {postgres.DEFAULTS['connect_timeout']} s later" in PAGE
