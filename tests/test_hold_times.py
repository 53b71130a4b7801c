"""Text is timed from its arrival to its release, part by part, by a clock that is handed in."""

import re

from adapters.base import Delta, Finish, Key, Kind, Opaque
from proxy.gate import Gate
from proxy.hold_times import HOLD_SECONDS, HoldTimes
from tests.driver import answer, body
from tests.fakes import ScriptedGuard, ScriptedUpstream
from tests.servers import weir
from tests.sockets import ask, free_port, http_request

CONTENT = Key(0, "content")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def delta(text: str, key: Key = CONTENT) -> Delta:
    return Delta(key, Kind.CONTENT, text)


def test_each_part_of_a_delta_counts_when_it_leaves() -> None:
    clock = Clock()
    times = HoldTimes(clock)
    gate = Gate(100, timing=times.of(clock))
    gate.hold(delta("hello"))
    clock.now = 1.0
    gate.hold(delta(" world"))
    assert times.read().count == 0
    gate.clear(CONTENT, 3)
    gate.release()
    assert times.read().total == 1.0  # "hel", a second after it came
    clock.now = 3.0
    gate.clear(CONTENT, 11)
    gate.release()
    found = times.read()
    assert (found.count, found.total) == (3, 1.0 + 3.0 + 2.0)


def test_what_is_thrown_away_and_what_is_no_text_is_not_timed() -> None:
    clock = Clock()
    times = HoldTimes(clock)
    gate = Gate(100, timing=times.of(clock))
    gate.hold(Opaque(0, {"role": "assistant"}))
    gate.hold(delta("ab"))
    gate.hold(Finish(0, "stop"))
    gate.hold(delta("cd", Key(1, "content")))
    gate.drop(1)
    gate.clear(CONTENT, 2)
    assert len(gate.release()) == 3
    assert times.read().count == 1


def test_the_buckets_end_where_the_aims_are() -> None:
    assert {0.03, 0.08} <= {*HOLD_SECONDS}
    assert list(HOLD_SECONDS) == sorted(HOLD_SECONDS)


async def test_a_server_times_what_it_streams_and_nothing_else() -> None:
    port = free_port()
    upstream = ScriptedUpstream(answer(["one", " two", " three"]))
    async with weir(upstream, ScriptedGuard(delay=0.1), admin__port=port) as server:
        assert (await ask(server.url, http_request(stream=True))).status == 200
        upstream.chunks, upstream.content_type = [body({"content": "one two"})], "application/json"
        assert (await ask(server.url, http_request())).status == 200
        request = http_request(b"", method="GET", path="/metrics", headers={"Host": "127.0.0.1", "Content-Type": ""})
        text = (await ask(f"http://127.0.0.1:{port}", request)).body.decode()
    found = {name: float(number) for name, number in re.findall(r"^weir_hold_seconds_(\w+) (\S+)$", text, re.MULTILINE)}
    assert found["count"] >= 3
    assert found["sum"] >= 0.09 * found["count"], "each had to wait for its verdict"
