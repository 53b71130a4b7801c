"""Settings read again while the server runs: what may change does, and the last good ones stay otherwise."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from proxy.config import ConfigError
from proxy.config_file import UPSTREAM, Name
from proxy.errors import place_of
from proxy.setting_names import SEVERAL, written
from proxy.settings import Settings, cross_faults

LOGGER = logging.getLogger("weir.settings")

# What the next request goes by. All else is built into what runs: sockets, connections, the guard.
LIVE = ("policy", "policies", "rules", "annotations")
LOG_LEVEL = ("log", "level")

Read = Callable[[], Settings]


class Adopting(Protocol):
    """What goes by the settings that may change."""

    def adopt(self, settings: Settings) -> None: ...


class Reloader:
    """Reads the settings when it is asked to, and hands what may change to the service.

    A request goes by what it found at its beginning, to its end.
    """

    def __init__(self, read: Read, settings: Settings) -> None:
        self._read = read
        self._settings = settings
        self._service: Adopting | None = None
        self.asked = asyncio.Event()

    def attach(self, service: Adopting) -> None:
        self._service = service

    async def run(self) -> None:
        """Until cancelled. Requests to reload that come while it reads are one."""
        while True:
            await self.asked.wait()
            self.asked.clear()
            try:
                found = await asyncio.to_thread(self._read)
                self._adopt(found)
            except ConfigError as exc:
                LOGGER.error("settings not reloaded, the last good ones stay: %s", " ".join(str(exc).splitlines()))
            except Exception as exc:  # a mistake of ours is no reason to stop serving
                LOGGER.error("settings not reloaded, the last good ones stay: internal: %s", place_of(exc))

    def _adopt(self, found: Settings) -> None:
        """Raises ConfigError."""
        live = live_settings(self._settings, found)
        if faults := [f"{written(name)} {reason}." for name, reason in cross_faults(live)]:
            raise ConfigError("\n".join(faults))
        LOGGER.warning("settings reloaded: %s", told(self._settings, live, found))
        self.take(live)

    def take(self, live: Settings) -> None:
        """Go by settings that have been checked."""
        self._settings = live
        if self._service is not None:
            self._service.adopt(live)
        logging.getLogger("weir").setLevel(live.log.level.upper())


def live_settings(now: Settings, found: Settings) -> Settings:
    """Those that run, with what may change as it was found."""
    changed: dict[str, Any] = {name: getattr(found, name) for name in LIVE}
    return now.model_copy(update=changed | {"log": now.log.model_copy(update={"level": found.log.level})})


def told(now: Settings, live: Settings, found: Settings) -> str:
    """One line: which keys have changed, and which need a restart. Never a value: some are secret."""
    changed, waiting = list(differences(now, live)), list(differences(live, found))
    parts = [f"{', '.join(map(written, changed))} changed" if changed else "nothing changed"]
    if waiting:
        parts.append(f"{', '.join(map(written, waiting))} changed too, and need a restart")
    return "; ".join(parts)


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
