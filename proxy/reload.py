"""Settings read again while the server runs: what may change does, and the last good ones stay otherwise."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.config import ConfigError, require_upstream
from proxy.config_file import UPSTREAM, Name
from proxy.errors import place_of
from proxy.exposure import require_identity
from proxy.setting_names import SEVERAL, written
from proxy.settings import Settings, cross_faults

LOGGER = logging.getLogger("weir.settings")

# What the next request goes by: whole sections, and keys of others. All else is built into what runs: sockets,
# routes, processes, the guard.
LIVE = ("policy", "policies", "rules", "annotations", "auth", "upstream", "upstream_tables")
LIVE_KEYS: Mapping[str, tuple[str, ...]] = {
    "server": (
        "allowed_hosts", "max_messages", "max_choices", "max_json_depth", "request_seconds", "send_seconds",
        "heartbeat_seconds",
        "pre_stop_seconds", "drain_seconds", "max_connections", "max_connections_per_address", "max_streams",
        "max_lag_seconds",
    ),
    "passthrough": ("upstream", "max_upload_bytes", "max_answer_bytes", "idle_seconds"),
    "log": ("level",),
    "records": ("keep_days", "max_bytes", "content"),
}  # fmt: skip
KEPT = "settings not reloaded, the last good ones stay"

Read = Callable[[], Settings]


Reload = Callable[[], Awaitable["Reloaded"]]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of it: keys as `weir.toml` has them. Never a value: some are secret."""

    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]  # what has changed in the file, and waits

    def __str__(self) -> str:
        parts = [f"{', '.join(self.changed)} changed" if self.changed else "nothing changed"]
        if self.needs_restart:
            parts.append(f"{', '.join(self.needs_restart)} changed too, and need a restart")
        return "; ".join(parts)


class Adopting(Protocol):
    """What goes by the settings that may change."""

    def adopt(self, settings: Settings) -> None: ...


class Reloader:
    """Reads the settings when it is asked to, and hands what may change to whoever serves.

    A request goes by what it found at its beginning, to its end.
    """

    def __init__(self, read: Read, settings: Settings) -> None:
        self._read = read
        self._settings = settings
        self._adopting: Adopting | None = None
        self._lock = asyncio.Lock()
        self.asked = asyncio.Event()

    def attach(self, adopting: Adopting) -> None:
        self._adopting = adopting

    async def run(self, stopped: asyncio.Event) -> None:
        """Heed `asked` until stopped. Requests to reload that come while it reads are one."""
        while await either(self.asked, stopped):
            self.asked.clear()
            with suppress(ConfigError):  # the log has it
                await self.reload()

    async def reload(self) -> Reloaded:
        """Raises ConfigError with the reason; then the last good settings stay."""
        async with self._lock:
            try:
                found = await asyncio.to_thread(self._read)
                return self._adopt(found)
            except ConfigError as exc:
                LOGGER.error("%s: %s", KEPT, " ".join(str(exc).splitlines()))
                raise
            except Exception as exc:  # a mistake of ours is no reason to stop serving
                LOGGER.error("%s: internal: %s", KEPT, place_of(exc))
                raise ConfigError("The settings could not be reloaded, by a mistake of Weir's.") from exc

    def _adopt(self, found: Settings) -> Reloaded:
        """Raises ConfigError."""
        live = live_settings(self._settings, found)
        if faults := [f"{written(name)} {reason}." for name, reason in cross_faults(live)]:
            raise ConfigError("\n".join(faults))
        require_upstream(live)
        require_identity(live)
        done = Reloaded(told(self._settings, live), told(live, found))
        LOGGER.warning("settings reloaded: %s", done)
        self._settings = live
        if self._adopting is not None:
            self._adopting.adopt(live)
        return done


async def either(first: asyncio.Event, second: asyncio.Event) -> bool:
    """Wait for one of the two; whether the second is not set."""
    loop = asyncio.get_running_loop()
    waiting = {loop.create_task(event.wait()) for event in (first, second)}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
    return not second.is_set()


def live_settings(now: Settings, found: Settings) -> Settings:
    """Those that run, with what may change as it was found."""
    changed: dict[str, Any] = {name: getattr(found, name) for name in LIVE}
    for name, keys in LIVE_KEYS.items():
        section = getattr(found, name)
        changed[name] = getattr(now, name).model_copy(update={key: getattr(section, key) for key in keys})
    return now.model_copy(update=changed)


def told(now: Settings, other: Settings) -> tuple[str, ...]:
    """The keys that are not the same."""
    return tuple(written(name) for name in differences(now, other))


def differences(one: Settings, other: Settings) -> Iterator[Name]:
    """The paths of what is not the same; of a table that only one has, its own."""
    yield from _differences((), one.model_dump(), other.model_dump())


def _differences(path: Name, one: Any, other: Any) -> Iterator[Name]:
    if one == other:
        return
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        yield (UPSTREAM, *path[1:]) if path[0] == SEVERAL else path
        return
    for key in [*one, *(key for key in other if key not in one)]:
        yield from _differences((*path, str(key)), one.get(key), other.get(key))
