"""Who is there, by a process that looks."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from proxy.guard.client import Address
from proxy.guard.places import FixedPlaces, Place, PlacesProcess, Question, Seen
from proxy.guard.protocol import GuardUnavailable

ONE, TWO = Place("guard-0", "10.0.0.7", 9400, "secret"), Place("guard-1", "10.0.0.8", 9400, "secret")


class Looking(PlacesProcess):
    module = "tests.guard.looker"


def tell(folder: Path, *places: Place, error: str = "") -> None:
    (folder / "seen").write_bytes(msgspec.json.encode(Seen([*places], error)))


async def until(looking: Looking, expected: list[Place]) -> None:
    async with asyncio.timeout(60):
        while await looking.next() != expected:
            pass


async def test_what_the_process_sees_is_told_at_each_look(tmp_path: Path) -> None:
    tell(tmp_path, ONE)
    looking = Looking(Question(str(tmp_path), "guard"))
    await looking.start()
    try:
        assert await looking.next() == [ONE]
        tell(tmp_path, ONE, TWO)
        looking.look()
        await until(looking, [ONE, TWO])
        assert looking.detail == "2 engines of fleet guard are known"
    finally:
        await looking.close()
    await looking.close()
    looking.look()


async def test_a_process_that_died_or_cannot_look_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.guard.places.RESTART_SECONDS", (0.05,))
    tell(tmp_path, ONE)
    looking = Looking(Question(str(tmp_path), "guard"))
    await looking.start()
    waiting: asyncio.Task[None] | None = None
    try:
        for bad in ('{"error": "no cluster"}', "die", "no JSON"):
            (tmp_path / "seen").write_text(bad)
            waiting = asyncio.get_running_loop().create_task(until(looking, [TWO]))
            begun = starts(tmp_path)
            async with asyncio.timeout(60):
                while starts(tmp_path) == begun:  # noqa: ASYNC110 (a file)
                    await asyncio.sleep(0.02)
            assert looking.detail.startswith("the cluster cannot be asked")
            tell(tmp_path, TWO)
            await waiting
    finally:
        await looking.close()


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


async def test_a_start_that_is_hopeless_says_why(tmp_path: Path) -> None:
    tell(tmp_path, error="no Ray cluster can be joined")
    looking = Looking(Question(str(tmp_path), "guard"))
    with pytest.raises(GuardUnavailable, match="no Ray cluster can be joined"):
        await looking.start()
    await looking.close()
    (tmp_path / "seen").write_text("die")
    with pytest.raises(GuardUnavailable, match=r"pip install \"weir-proxy\[ray\]\""):
        await looking.start()
    await looking.close()


def test_a_place_is_an_address_and_keeps_its_token_to_itself() -> None:
    assert ONE.address == Address(host="10.0.0.7", port=9400)
    assert "secret" not in repr(ONE)
    assert ONE.same_engine(msgspec.structs.replace(ONE, is_draining=True))
    assert not ONE.same_engine(msgspec.structs.replace(ONE, token="other"))


async def test_places_that_are_written_down_are_told_at_once_when_missed_and_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixed = FixedPlaces([Address(path="/s"), Address(host="::1", port=9400)], "secret")
    await fixed.start()
    expected = [Place("unix:/s", "", 0, "secret", path="/s"), Place("tcp://[::1]:9400", "::1", 9400, "secret")]
    assert await fixed.next() == expected
    assert "unix:/s, tcp://[::1]:9400" in fixed.detail
    monkeypatch.setattr("proxy.guard.places.LOOK_SECONDS", 3600.0)
    waiting = asyncio.ensure_future(fixed.next())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    fixed.look()
    assert await waiting == expected
    monkeypatch.setattr("proxy.guard.places.LOOK_SECONDS", 0.01)
    assert await fixed.next() == expected
    await fixed.close()
