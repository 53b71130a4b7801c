"""An engine server turned by hand, with peers that are plain sockets."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.guard.black_box import BlackBox
from proxy.guard.commands import Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.engine import Engine
from proxy.guard.engine_loop import EngineLoop
from proxy.guard.protocol import GuardInfo, UnknownStream
from proxy.guard.rows import read_rows
from proxy.guard.runner import Runner
from proxy.guard.server import EngineServer
from proxy.guard.wire import (
    VERSION,
    Answers,
    FrameDecoder,
    Hello,
    Pulse,
    Refusal,
    Welcome,
    decode_greeting,
    decode_news,
    encode,
    frame,
    outcomes_of,
)
from proxy.risk import Role
from tests.guard.checkpoints import random_ids
from tests.guard.driver import Poisoned, Small, distance, rows_of
from tests.sockets import PATIENCE_SECONDS

INFO = GuardInfo("small", "1", 1024)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


class World:
    """A server, its listeners and its box."""

    def __init__(self, small: Small, path: Path, suspects: dict[int, list[int]] | None = None) -> None:
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(path))
        self.unix.listen()
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.box = BlackBox()
        self.runner = Runner(small.loaded.model)
        self.engine = Engine(self.runner, window=1024, budget_bytes=1 << 24)
        listeners = {self.unix: "", self.tcp: "secret"}
        self.server = EngineServer(EngineLoop(self.engine), INFO, 400, listeners, self.box, suspects)
        self.peers: list[Peer] = []

    def connect(self, *, door: int = 1, token: str = "", version: int = VERSION, tcp: bool = False) -> "Peer":
        peer = Peer(self, self.tcp if tcp else self.unix)
        peer.send(Hello(version, door, token))
        return peer

    def close(self) -> None:
        self.server.close()
        for one in (self.unix, self.tcp, *(peer.sock for peer in self.peers)):
            one.close()


class Peer:
    def __init__(self, world: World, listener: socket.socket) -> None:
        self.world = world
        self.sock = socket.socket(listener.family)
        self.sock.connect(listener.getsockname())
        self.sock.setblocking(False)
        self.decoder = FrameDecoder()
        self.bodies: list[bytes] = []
        self.is_cut_off = False
        world.peers.append(self)

    def send(self, message: object) -> None:
        self.sock.send(frame(encode(message)))

    def greeting(self) -> Welcome | Refusal:
        self.wait(lambda: bool(self.bodies))
        return decode_greeting(self.bodies.pop(0))

    def ask(self, *commands: Command) -> dict[int, Outcome]:
        """Send commands, and wait for the answers to all questions among them."""
        self.send(list(commands))
        wanted = {command.ticket for command in commands if isinstance(command, Open | Feed)}
        found: dict[int, Outcome] = {}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not wanted <= found.keys():
            assert time.monotonic() < deadline
            self.pump()
            for body in self.bodies:
                news = decode_news(body)
                if isinstance(news, Answers):
                    found |= {outcome.ticket: outcome for outcome in outcomes_of(news)}
            self.bodies.clear()
        return found

    def pump(self) -> None:
        self.world.server.turn(0.001)
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.is_cut_off = not data
        self.bodies += self.decoder.feed(data)

    def wait(self, condition: object) -> None:
        assert callable(condition)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline
            self.pump()


@pytest.fixture
def world(small: Small, tmp_path: Path) -> Iterator[World]:
    found = World(small, tmp_path / "s")
    yield found
    found.close()


def test_doors_share_an_engine_and_never_each_others_streams(world: World, small: Small) -> None:
    first, second = world.connect(door=1), world.connect(door=2, tcp=True, token="secret")
    for peer in (first, second):
        welcome = peer.greeting()
        assert isinstance(welcome, Welcome)
        assert (welcome.info, welcome.vocabulary, welcome.suspects) == (INFO, 400, [])
    texts = [random_ids(60), random_ids(60, seed=1)]
    for peer, text in zip((first, second), texts, strict=True):
        # The same numbers on both sides.
        peer.ask(Open(1, 2, text[:30], [], Role.USER, "key"), Fork(2, 3, 30))
    for peer, text in zip((first, second), texts, strict=True):
        expected = small.reference.rows(text)[30:]
        for stream, ticket in ((2, 4), (3, 5)):
            outcome = peer.ask(Feed(ticket, stream, 30, text[30:]))[ticket]
            assert distance(rows_of(read_rows(outcome.rows, 30, Role.ASSISTANT)), expected) < 1e-5
    assert world.engine.metrics().streams == 4


def test_a_door_that_goes_takes_its_streams_along(world: World) -> None:
    first, second = world.connect(door=1), world.connect(door=2)
    for peer in (first, second):
        peer.greeting()
        peer.ask(Open(1, 1, [1, 2, 3], [], Role.USER, ""), Fork(1, 2, 3))
    first.send([Feed(3, 1, 3, random_ids(600))])
    first.sock.close()
    second.wait(lambda: world.engine.metrics().streams == 2)
    assert second.ask(Feed(4, 2, 3, [7]))[4].error is None
    assert isinstance(second.ask(Feed(5, 9, 0, [7]))[5].error, UnknownStream)
    second.send([Close(1), Close(2)])
    second.wait(lambda: world.engine.metrics().streams == 0)
    assert world.engine.metrics().kv_held_bytes == 0


@pytest.mark.parametrize(
    ("hello", "reason"),
    [({"token": "wrong", "tcp": True}, "token"), ({"tcp": True}, "token"), ({"version": VERSION + 1}, "one release")],
)
def test_strangers_and_other_versions_are_refused_with_the_reason(
    world: World, hello: dict[str, object], reason: str
) -> None:
    peer = world.connect(**hello)  # type: ignore[arg-type]
    greeting = peer.greeting()
    assert isinstance(greeting, Refusal)
    assert reason in greeting.reason
    peer.wait(lambda: peer.is_cut_off)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", frame(b"\xc1"), frame(encode([1])), frame(b"")]
)
@pytest.mark.parametrize("is_greeted", [False, True])
def test_a_peer_that_speaks_something_else_is_cut_off_alone(world: World, data: bytes, is_greeted: bool) -> None:
    good = world.connect()
    good.greeting()
    bad = Peer(world, world.unix)
    if is_greeted:
        bad.send(Hello(VERSION, 2))
        bad.greeting()
        bad.ask(Open(1, 1, [1], [], Role.USER, ""))
        data += b"\xff" * 4  # whatever the length was taken for, this is beyond any limit
    bad.sock.send(data)
    bad.sock.shutdown(socket.SHUT_WR)
    bad.wait(lambda: bad.is_cut_off)
    assert good.ask(Open(1, 1, [1, 2], [1], Role.USER, ""))[1].error is None
    assert world.engine.metrics().streams == 1


def test_a_peer_that_says_nothing_is_cut_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.guard.server.HELLO_SECONDS", 0.1)
    monkeypatch.setattr("proxy.guard.server.PULSE_SECONDS", 0.1)
    peer = Peer(world, world.unix)
    peer.wait(lambda: peer.is_cut_off)


def test_questions_that_cannot_be_are_faults_and_reach_no_model(world: World) -> None:
    peer = world.connect()
    peer.greeting()
    wrong = [
        Open(1, 1, [400], [], Role.USER, ""),
        Open(2, 2, [-1], [], Role.USER, ""),
        Open(3, 3, [1] * 1025, [], Role.USER, ""),
        Open(4, 4, [1, 2], [2], Role.USER, ""),
    ]
    answers = peer.ask(*wrong, Open(5, 5, [1, 2], [1], Role.USER, ""))
    assert [answers[ticket].error is None for ticket in range(1, 6)] == [False, False, False, False, True]
    assert peer.ask(Feed(6, 5, 2, [400]))[6].error is not None
    assert peer.ask(Feed(7, 5, 2, [3]))[7].error is None
    peer.send([Open(8, 5, [5, 6], [1], Role.USER, "")])  # a number that is taken begins anew
    assert peer.ask(Feed(9, 5, 2, [3]))[9].error is None
    assert world.engine.metrics().streams == 1


def test_an_engine_that_lives_says_so(world: World) -> None:
    peer = world.connect()
    peer.greeting()
    peer.wait(lambda: any(isinstance(decode_news(body), Pulse) for body in peer.bodies))
    assert world.box.silent_seconds < PATIENCE_SECONDS


def test_the_box_names_the_streams_of_the_step_that_runs_and_the_door_learns_of_its_own(
    small: Small, tmp_path: Path
) -> None:
    class Noted(Exception):
        pass

    world = World(small, tmp_path / "a")
    suspects: dict[int, list[int]] = {}
    world.runner.model = Poisoned(small.loaded.model, 7, lambda: Noted(suspects.update(world.box.suspects())))
    first, second = world.connect(door=11), world.connect(door=22)
    for peer in (first, second):
        peer.greeting()
        peer.ask(Open(1, 5, [1, 2], [], Role.USER, ""))
    second.ask(Feed(2, 5, 2, [7]))
    assert suspects == {22: [5]}
    assert world.box.suspects() == {}
    world.close()
    world = World(small, tmp_path / "b", suspects)
    for door, expected in ((11, []), (22, [5]), (22, [])):
        welcome = world.connect(door=door).greeting()
        assert isinstance(welcome, Welcome)
        assert welcome.suspects == expected
    world.close()


def test_a_door_that_does_not_read_is_cut_off_in_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.guard.server.MAX_UNSENT_BYTES", 1 << 16)
    deaf, good = world.connect(door=1), world.connect(door=2)
    deaf.greeting()
    good.greeting()
    text = random_ids(1000)
    deaf.ask(Open(1, 1, text[:10], [], Role.USER, ""))
    deadline = time.monotonic() + PATIENCE_SECONDS
    ticket = 2
    while world.engine.metrics().streams:
        assert time.monotonic() < deadline
        deaf_command = frame(encode([Feed(ticket, 1, 10, text[10:])]))
        try:
            deaf.sock.send(deaf_command)
        except OSError:
            break
        ticket += 1
        for _ in range(4):
            world.server.turn(0.0)
    assert good.ask(Open(1, 1, [1], [], Role.USER, ""))[1].error is None
