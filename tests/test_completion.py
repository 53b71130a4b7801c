"""Completion as a shell has it: the scripts are run, not read."""

import argparse
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.completion import SHELLS, script


def completed(*words: str, folder: Path) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(words)
    code = f"""
        source ./script
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
        COMP_LINE='{line}'; COMP_POINT={len(line)}
        $(complete -p weir | grep -oP '(?<=-F )\\S+') weir '{words[-1]}' '{words[-2]}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", code], cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_flags_values_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "weir.toml").touch()
    assert completed("weir", "se", folder=tmp_path) == ["serve"]
    assert {"init", "doctor", "demo"} <= set(completed("weir", "", folder=tmp_path))
    assert completed("weir", "serve", "--upst", folder=tmp_path) == ["--upstream", "--upstream-key"]
    assert completed("weir", "serve", "--mode", "", folder=tmp_path) == ["loose", "strict"]
    assert completed("weir", "serve", "--config", "we", folder=tmp_path) == ["weir.toml"]
    assert completed("weir", "completion", "", folder=tmp_path) == sorted(SHELLS)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_takes_the_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    for word in ("serve", "--upstream", "loose", "--guard-address"):
        assert word.removeprefix("--") in said
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script is looked at, not run")
    (tmp_path / "script").write_text(said)
    done = subprocess.run(
        [shell, "-n", "script"], cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_files_and_folders_are_offered_where_a_flag_wants_one() -> None:
    parser = argparse.ArgumentParser("thing")
    parser.add_argument("--out", metavar="DIR")
    parser.add_argument("--log", type=Path)
    said = script(parser, "bash")
    assert "_out_COMPGEN=_shtab_compgen_dirs" in said
    assert "_log_COMPGEN=_shtab_compgen_files" in said
