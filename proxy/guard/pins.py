"""A guard's files against the SHA-256 that the settings name for them, before anything in them is read."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

HASH_BLOCK_BYTES = 1 << 20


def sha256_of(paths: Iterable[Path]) -> str:
    """Of the files one after another, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(HASH_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def pin_fault(folder: Path, pins: Mapping[str, str], read: Iterable[str]) -> str | None:
    """Why the folder is not the one that was pinned, as a sentence's end; None where it is.

    `pins`: a file's name -> its SHA-256. `read`: the files that are read if they are there, and so have to be named:
    config.json says which number means Unsafe, so it is worth as much as the weights.
    """
    unnamed = [name for name in read if name not in pins and (folder / name).is_file()]
    if unnamed:
        return f"guard.sha256 does not name {', '.join(unnamed)}, which would be read: `sha256sum` prints what to add"
    for name, wanted in pins.items():
        try:
            found = sha256_of([folder / name])
        except OSError as exc:
            return f"guard.sha256 names {name}, which cannot be read ({(exc.strerror or str(exc)).lower()})"
        if found != wanted:
            return f"{name} has the SHA-256 {found}, but guard.sha256 says {wanted}: it is not the file that was pinned"
    return None
