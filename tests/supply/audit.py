"""Known holes of the versions that are locked, as far as a service of advisories can be asked.

    python -m tests.supply.audit FOLDER LOCK

FOLDER is an environment with pip-audit, made if it is missing. Exits with 1 where a hole is known. Without a network,
or where the registry tells no advisories, it says that it was skipped and exits with 0, never that none was found.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).parent / "requirements.txt"
# Of the installation, and of the questions: one for each package.
SECONDS = 240


def verdict(report: Any, locked: int) -> tuple[int, list[str]]:
    """An exit status and what to print. `report`: pip-audit's JSON, or a sentence where there is none."""
    if isinstance(report, str):
        return 0, [f"skipped: {report}; nothing was audited"]
    found, unknown = [], []
    for one in report["dependencies"]:
        if "skip_reason" in one:
            unknown.append(one["name"])
        for hole in one.get("vulns", ()):
            mended = ", ".join(hole["fix_versions"]) or "no version yet"
            found.append(f"{one['name']} {one['version']}: {hole['id']}, mended in {mended}")
    asked = len(report["dependencies"]) - len(unknown)
    if not asked:
        return 0, [f"skipped: no advisories are told here for any of {locked} packages; nothing was audited"]
    said = [f"{asked} of {locked} packages audited, {len(found)} known holes"]
    if asked < locked:
        said.append(f"not audited: {', '.join(unknown) or 'those that pip-audit did not report'}")
    return int(bool(found)), [*found, *said]


def ask(folder: Path, lock: Path) -> Any:
    """pip-audit's report, or why there is none."""
    program = folder / "bin" / "pip-audit"
    try:
        if not program.exists():
            venv.create(folder, with_pip=True)
            install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement", str(TOOLS)]
            subprocess.run(install, timeout=SECONDS, check=True, capture_output=True)
        flags = ["--disable-pip", "--no-deps", "--format", "json", "--progress-spinner", "off"]
        done = subprocess.run(
            [program, "--requirement", lock, *flags], timeout=SECONDS, check=False, capture_output=True, text=True
        )
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS} s"
    except (subprocess.CalledProcessError, OSError):
        return "pip-audit cannot be installed or started"
    except ValueError:  # a failed connection ends it without a report
        return "pip-audit could not ask for advisories"


def main(folder: str, lock: str) -> int:
    locked = sum("==" in line for line in Path(lock).read_text().splitlines())
    status, lines = verdict(ask(Path(folder), Path(lock)), locked)
    print("\n".join(f"audit: {line}" for line in lines))
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
