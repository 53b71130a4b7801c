"""Where a checkpoint's files are, a folder or the hub, and whether they are the ones that were pinned."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from proxy.guard.pins import pin_fault, sha256_of
from proxy.guard.protocol import GuardUnavailable

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = "*.safetensors"
CODE = "*.py"
PICKLES = (".bin", ".pt", ".pth", ".pkl")
# Why the hub gave nothing, the closest kind first.
REASONS: Mapping[type[Exception], str] = {
    GatedRepoError: "it is gated; ask for access on its page, then `hf auth login`",
    RepositoryNotFoundError: "the hub has no model of this name, or none for who is not logged in",
    RevisionNotFoundError: "the hub has no such revision of it",
    LocalEntryNotFoundError: "the hub was not reached",
}


class CheckpointError(GuardUnavailable):
    """The guard's weights cannot be had or cannot be trusted. The message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Files:
    """A checkpoint's folder; `revision` is the hub's commit, or the start of the weights' SHA-256."""

    folder: Path
    name: str
    revision: str
    config: Mapping[str, Any]
    weights: tuple[Path, ...]


def find_files(model: str, revision: str | None, pins: Mapping[str, str], *, with_code: bool = False) -> Files:
    """Of a folder or a hub id; `pins` and `revision` as in `loader.load_guard`. Raises CheckpointError.

    `with_code`: its Python files are part of it, to be downloaded and to be pinned.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        name, commit = folder.resolve().name, None
    elif not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model):
        raise CheckpointError(f"guard {model!r}: no such folder, and not a hub id like Qwen/Qwen3Guard-Stream-0.6B")
    else:
        folder = _download(model, revision, ["*.json", WEIGHTS, *([CODE] if with_code else [])])
        # The hub's cache names a snapshot's folder after its commit.
        name, commit = model.rpartition("/")[2], folder.name
    _check_pins(folder, name if commit is None else model, pins, with_code=with_code)
    config = _read_json(folder / CONFIG, name)
    weights = _weight_files(folder, name)
    found = commit or sha256_of(weights)[:12]
    if commit is None and revision is not None and not found.startswith(revision.removeprefix("sha256:")[: len(found)]):
        raise CheckpointError(f"{name}: the weights' SHA-256 starts with {found}, but {revision} was asked for")
    return Files(folder, name, found, config, tuple(weights))


def _download(model: str, revision: str | None, patterns: Sequence[str]) -> Path:
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as exc:
        at = f" at revision {revision}" if revision else ""
        why = next((said for kind, said in REASONS.items() if isinstance(exc, kind)), type(exc).__name__)
        raise CheckpointError(
            f"guard {model}{at} is not in the local cache and could not be downloaded: {why}. "
            f"With a connection, run `hf download {model}`; without one, copy the folder here and name it instead."
        ) from exc


def _check_pins(folder: Path, name: str, pins: Mapping[str, str], *, with_code: bool) -> None:
    if not pins:
        return
    weights = sorted(path.name for path in folder.glob(WEIGHTS))
    code = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(CODE)) if with_code else []
    if fault := pin_fault(folder, pins, (CONFIG, INDEX, *weights, *code)):
        raise CheckpointError(f"{name}: {fault}")


def _weight_files(folder: Path, name: str) -> list[Path]:
    if (folder / INDEX).is_file():
        weight_map = _read_json(folder / INDEX, name).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{name}: {INDEX} has no weight_map")
        shards = sorted({str(shard) for shard in weight_map.values()})
        # A shard is a file beside the index; anything else would read outside the checkpoint, or past its pins.
        there = {path.name for path in folder.glob(WEIGHTS) if path.is_file()}
        if missing := [shard for shard in shards if shard not in there]:
            raise CheckpointError(f"{name}: {INDEX} names {', '.join(missing)}, not in the folder as {WEIGHTS}")
        return [folder / shard for shard in shards]
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    if any(path.suffix in PICKLES for path in folder.iterdir()):
        raise CheckpointError(
            f"{name}: only pickled weights ({', '.join(PICKLES)}) are there. Loading a pickle runs its code, "
            "so it is refused; convert them to safetensors"
        )
    raise CheckpointError(f"{name}: no model.safetensors and no {INDEX} in the folder")


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise CheckpointError(f"{name}: there is no {path.name} in the folder") from exc
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{name}: {path.name} is not readable JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{name}: {path.name} must hold an object")
    return value
