"""`weir guard up | status | drain | down`: engines on a Ray cluster, for proxies with `guard.backend = "ray"`."""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from proxy.guard.client import EngineClient
from proxy.guard.door import GuardDoor
from proxy.guard.places import Gone, Place
from proxy.guard.protocol import GuardUnavailable
from proxy.guard.settings import GuardSettings as EngineSettings
from proxy.settings import GuardSettings, Settings

# Between two looks at engines that start or drain.
LOOK_SECONDS = 1.0
# An engine tells every second what it holds.
TELLING_SECONDS = 5.0


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Returns the exit status."""
    try:
        from proxy.guard import cluster
    except ModuleNotFoundError as exc:
        print(f'weir guard {arguments.action} needs {exc.name}: pip install "weir-proxy[ray]"', file=sys.stderr)
        return 2
    try:
        return RUN[arguments.action](cluster.connect(settings.guard.ray_address), arguments, settings.guard)
    except (GuardUnavailable, ValueError) as exc:
        print(exc, file=sys.stderr)
        return 1


def _up(engines: Any, arguments: argparse.Namespace, wanted: GuardSettings) -> int:
    from proxy.guards import config_of

    gpus = arguments.gpus if arguments.gpus is not None else float(wanted.device.startswith("cuda"))
    config = config_of(wanted.model_copy(update={"threads": wanted.threads or max(1, int(arguments.cpus))}))
    fleet = wanted.ray_fleet
    names = [f"{fleet}-{number}" for number in range(arguments.replicas)]
    new = engines.raise_fleet(fleet, arguments.replicas, config, cpus=arguments.cpus, gpus=gpus)
    print(f"{len(new)} engines are started, {len(names) - len(new)} were there", flush=True)
    deadline = time.monotonic() + (600.0 if arguments.wait is None else arguments.wait)
    while True:
        found = engines.look(names)
        missing = [name for name in names if not isinstance(found[name], Place)]
        is_hopeless = any(isinstance(found[name], Gone) for name in missing)
        if not missing or is_hopeless or time.monotonic() > deadline:
            break
        time.sleep(LOOK_SECONDS)
    for name in names:
        place = found[name]
        print(f"{name}: ready at {place.address}" if isinstance(place, Place) else f"{name}: {place}")
    return 1 if missing else 0


def _status(engines: Any, arguments: argparse.Namespace, wanted: GuardSettings) -> int:
    names = engines.names_of(wanted.ray_fleet)
    if not names:
        print(f"no engine of fleet {wanted.ray_fleet}: `weir guard up` starts some", file=sys.stderr)
        return 1
    found = engines.look(names)
    told = asyncio.run(_tell([place for place in found.values() if isinstance(place, Place)]))
    for name in names:
        place = found[name]
        print(f"{name}: {told[name] if isinstance(place, Place) else place}")
    return 0 if all(isinstance(place, Place) for place in found.values()) else 1


def _drain(engines: Any, arguments: argparse.Namespace, wanted: GuardSettings) -> int:
    if not arguments.names:
        print("weir guard drain needs the names of engines: `weir guard status` lists them", file=sys.stderr)
        return 2
    engines.drain(arguments.names)
    print("new streams go to other engines; `weir guard up` takes them back")
    return 0


def _down(engines: Any, arguments: argparse.Namespace, wanted: GuardSettings) -> int:
    names = arguments.names or engines.names_of(wanted.ray_fleet)
    if arguments.wait:
        engines.drain(names)
        deadline = time.monotonic() + arguments.wait
        while time.monotonic() < deadline and asyncio.run(_streams(engines.look(names).values())):
            time.sleep(LOOK_SECONDS)
    engines.end(names)
    print(f"{len(names)} engines are gone")
    return 0


RUN: dict[str, Callable[[Any, argparse.Namespace, GuardSettings], int]] = {
    "up": _up, "status": _status, "drain": _drain, "down": _down,
}  # fmt: skip


async def _tell(places: Sequence[Place]) -> dict[str, str]:
    return dict(zip([place.name for place in places], await asyncio.gather(*map(_line, places)), strict=True))


async def _line(place: Place) -> str:
    streams = await _streams_of(place)
    if streams is None:
        return f"does not answer at {place.address}"
    return f"{'drained' if place.is_draining else 'ready'} at {place.address}, {streams} streams"


async def _streams(found: Iterable[Place | str]) -> int:
    counts = await asyncio.gather(*(_streams_of(place) for place in found if isinstance(place, Place)))
    return sum(count or 0 for count in counts)


async def _streams_of(place: Place) -> int | None:
    """What an engine holds; None where it does not say."""
    door = GuardDoor(EngineSettings())
    client = EngineClient(door, place.address, place.token)
    client.start()
    try:
        async with asyncio.timeout(TELLING_SECONDS):
            await client.greeted(TELLING_SECONDS)
            while not door.metrics().kv_budget_bytes:  # noqa: ASYNC110 (numbers, which come every second)
                await asyncio.sleep(0.05)
            return door.metrics().streams
    except (GuardUnavailable, TimeoutError):
        return None
    finally:
        await client.close()
