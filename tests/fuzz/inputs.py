"""The inputs that are kept in the tree: a file each, by target. Crashers are added to them and stay."""

import hashlib
from pathlib import Path

from tests.fuzz.json_cases import CASES

FOLDER = Path(__file__).parent / "corpus"
# Most of what is tried as JSON stands in a table of its own.
JSON = {target: {name: data for name, (data, _) in CASES.items()} for target in ("json", "body")}


def of(target: str) -> dict[str, bytes]:
    """By the file's name."""
    files = sorted((FOLDER / target).glob("*"))
    return JSON.get(target, {}) | {path.name: path.read_bytes() for path in files}


def keep(target: str, data: bytes, folder: Path = FOLDER) -> Path:
    """Add an input that broke something."""
    path = folder / target / f"crash-{hashlib.sha256(data).hexdigest()[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
