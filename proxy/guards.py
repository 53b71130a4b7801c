"""The guard that the settings name: in a thread, in a process of its own, or one that somebody else serves."""

import asyncio
import os
import re
import sys
from typing import Any

import msgspec

from proxy.guard.client import Address
from proxy.guard.fleet import FleetGuard
from proxy.guard.limits import Limits
from proxy.guard.places import FixedPlaces, Places, PlacesProcess, Question
from proxy.guard.process import (
    CONNECT_SECONDS,
    Child,
    Config,
    Report,
    VllmGuard,
    attach_guard,
    serve_child,
    start_process_guard,
)
from proxy.guard.protocol import Guard, GuardUnavailable
from proxy.guard.settings import GuardSettings as EngineSettings
from proxy.guard_settings import SERVED
from proxy.settings import GuardSettings, Settings

# A plain way to start a process with the model in place; where it is missing the engine runs in a thread.
CAN_FORK = hasattr(os, "fork")


async def open_guard(settings: Settings, *, may_fork: bool = True) -> Guard:
    """Loaded and warm. `may_fork = False` is for short work: no process is started for it. Raises GuardError."""
    wanted, engine = settings.guard, engine_settings(settings.guard)
    if wanted.backend == "remote-code":
        return await _open_remote_code(wanted, engine)
    if wanted.backend == "ray":
        return await _open_fleet(PlacesProcess(Question(wanted.ray_address, wanted.ray_fleet)), engine)
    if wanted.backend == "sglang":
        return await _open_sglang(wanted, engine)
    if wanted.address is not None:
        seconds = min(CONNECT_SECONDS, engine.open_seconds)
        return await attach_guard(address_of(wanted.address), _token(wanted), engine, seconds)
    if wanted.replicas:
        places = FixedPlaces([address_of(one) for one in wanted.replicas], _token(wanted))
        return await _open_fleet(places, engine)
    if wanted.backend == "vllm":
        return await start_process_guard(config_of(wanted), VllmGuard)
    if wanted.process and may_fork and CAN_FORK:
        return await start_process_guard(config_of(wanted))
    from proxy.guard.service import start_guard  # torch is loaded where the engine runs, and nowhere else

    return await start_guard(wanted.model, **_checkpoint_of(wanted), settings=engine)


def serve_guard(settings: Settings) -> int:
    """Run the guard of the settings for proxies elsewhere, until a signal comes. Returns the exit status."""
    wanted = settings.guard
    if wanted.backend not in SERVED:
        print(f'weir guard serve is for backend = "local" or "vllm", not "{wanted.backend}".', file=sys.stderr)
        return 2
    if wanted.address is None:
        print("weir guard serve needs --guard-address: unix:PATH, or tcp://HOST:PORT with a token.", file=sys.stderr)
        return 2
    if not CAN_FORK:
        print("weir guard serve needs a system that can fork processes.", file=sys.stderr)
        return 2
    from proxy.guard.supervisor import Supervisor

    address = address_of(wanted.address)
    place = {"path": address.path, "host": address.host, "port": address.port, "token": _token(wanted)}
    if address.host and not place["token"]:
        print("A guard on a TCP address needs a token: set WEIR_GUARD__TOKEN here and at the proxies.", file=sys.stderr)
        return 2

    def report(what: Report) -> None:
        said = f"The guard cannot be started: {what.error}" if what.error else f"weir guard: ready at {address}"
        print(said, file=sys.stderr, flush=True)

    config = msgspec.structs.replace(config_of(wanted), **place)
    if wanted.backend == "vllm":
        return asyncio.run(serve_child(Child(VllmGuard.module, config, has_group=True), report))
    return Supervisor(config, report, lifeline=None).run()


async def _open_remote_code(wanted: GuardSettings, engine: EngineSettings) -> Guard:
    try:
        from proxy.guard.remote_code import start_remote_code_guard
    except ModuleNotFoundError as exc:
        raise _missing(exc, "remote-code") from exc
    return await start_remote_code_guard(wanted.model, **_checkpoint_of(wanted), settings=engine)


async def _open_fleet(places: Places, engine: EngineSettings) -> Guard:
    fleet = FleetGuard(places, engine)
    await fleet.start(min(CONNECT_SECONDS, engine.open_seconds))
    return fleet


async def _open_sglang(wanted: GuardSettings, engine: EngineSettings) -> Guard:
    from proxy.guard.sglang import start_sglang_guard

    assert wanted.sglang_url is not None  # the settings refuse anything else
    assert wanted.window is not None
    return await start_sglang_guard(wanted.sglang_url, wanted.sglang_api, wanted.window, engine, _token(wanted))


def _missing(error: ModuleNotFoundError, extra: str) -> GuardUnavailable:
    return GuardUnavailable(
        f'guard.backend = "{extra}" needs {error.name}, which is not installed: pip install "weir-proxy[{extra}]"'
    )


def _checkpoint_of(wanted: GuardSettings) -> dict[str, Any]:
    return {name: getattr(wanted, name) for name in ("revision", "device", "dtype", "sha256")}


def config_of(wanted: GuardSettings) -> Config:
    return Config(
        wanted.model, engine_settings(wanted), wanted.revision, wanted.dtype, wanted.device, sha256=wanted.sha256,
        vllm=wanted.vllm,
    )  # fmt: skip


def engine_settings(wanted: GuardSettings) -> EngineSettings:
    return EngineSettings(
        threads=wanted.threads,
        window=wanted.window,
        kv_bytes=wanted.kv_bytes,
        kv_share=wanted.kv_share,
        kv_dtype=wanted.kv_dtype,
        cuda_graphs=wanted.cuda_graphs,
        verdict_seconds=wanted.verdict_seconds,
        open_seconds=wanted.admission_seconds + wanted.verdict_seconds,
        hang_seconds=wanted.hang_seconds,
        limits=Limits(admission_seconds=wanted.admission_seconds, kept_tokens=wanted.kept_tokens),
    )


def address_of(text: str) -> Address:
    """`settings.GuardSettings.address` in parts."""
    if text.startswith("unix:"):
        return Address(path=text.removeprefix("unix:"))
    found = re.fullmatch(r"tcp://(\[.+\]|[^:]+):(\d+)", text)
    assert found is not None  # the settings refuse anything else
    return Address(host=found[1].strip("[]"), port=int(found[2]))


def _token(wanted: GuardSettings) -> str:
    return "" if wanted.token is None else wanted.token.get_secret_value()
