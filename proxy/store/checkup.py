"""What `weir doctor` says of the records: is the place there and writable, of which version, how full is it?"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from proxy.config_file import ConfigError
from proxy.record_settings import RecordSettings
from proxy.setting_types import MIB
from proxy.store.base import StoreCorrupt, StoreError, StoreUnusable
from proxy.store.places import place_of
from proxy.store.schema import NOTHING_YET, TOO_OLD, VERSION

STREAMS_GO_ON = "Streams go on without it, and their records are lost: "


@dataclass(frozen=True, slots=True)
class Checkup:
    """`fail`: `weir serve` does not start like this; `warn`: it does, and keeps no records, or not for long."""

    status: Literal["ok", "warn", "fail"]
    said: str
    todo: str = ""


def check_records(settings: RecordSettings) -> Checkup:
    """Of records that are on. Changes nothing."""
    try:
        place = place_of(settings)
        name = place.name()
    except (ConfigError, StoreUnusable) as exc:
        return Checkup("fail", str(exc), "Until then `weir serve` does not start.")
    if settings.file is not None and (fault := _fault_of(settings.file)):
        return Checkup("warn", f"{name} {fault}", f"{STREAMS_GO_ON}let the user that runs Weir write there.")
    if settings.file is not None and not settings.file.exists():
        return Checkup("ok", f"{name} is not there yet: `weir serve` makes it")
    try:
        store = place.open(is_reader=True)
        try:
            used = store.used_bytes()
        finally:
            store.close()
    except StoreError as exc:
        return _failed(name, exc)
    kept = f"{name}: version {VERSION}, {_size(used)} of {_size(settings.max_bytes)}, kept {settings.keep_days} days"
    if settings.file is not None and (free := shutil.disk_usage(settings.file.parent).free) < settings.max_bytes - used:
        todo = f"The disk may be full before they are deleted: it has {_size(free)} left. Lower [records] max_bytes."
        return Checkup("warn", kept, todo)
    return Checkup("ok", kept)


def _failed(name: str, exc: StoreError) -> Checkup:
    if str(exc) in (TOO_OLD, NOTHING_YET):
        return Checkup("ok", f"{name}: {exc}")
    if isinstance(exc, StoreUnusable):
        return Checkup("fail", f"{name}: {exc}", "Until then `weir serve` does not start.")
    if isinstance(exc, StoreCorrupt):
        return Checkup("warn", f"{name} is broken ({exc})", "`weir serve` sets it aside and begins a new one.")
    return Checkup(
        "warn", f"{name} cannot be read: {exc}", f"{STREAMS_GO_ON}is it up, and are its address and rights right?"
    )


def _fault_of(file: Path) -> str:
    if not _may(file.absolute().parent, os.W_OK | os.X_OK):
        return "is in a folder that cannot be written"  # SQLite has files of its own beside it
    return "cannot be written" if file.exists() and not _may(file, os.R_OK | os.W_OK) else ""


def _may(path: Path, mode: int) -> bool:
    """As opening it would find: by the user in effect, where the system can say."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _size(count: float) -> str:
    return f"{count / MIB:,.1f} MiB" if count < 1024 * MIB else f"{count / 1024 / MIB:,.1f} GiB"
