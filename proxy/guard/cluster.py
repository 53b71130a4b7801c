"""Engines on a Ray cluster: detached actors with names, which Ray places, and starts again when they die.

    python -m proxy.guard.cluster < question       # what `places.PlacesProcess` starts

Ray carries no tokens: a call costs a millisecond of processor on each side, so a proxy asks an actor only where its
engine listens, and for the token that it wants. Whoever may not enter the cluster learns neither.
"""

import os
import secrets
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import ray

from proxy.guard.places import Gone, Place, Question, Seen
from proxy.guard.process import Config, Report
from proxy.guard.protocol import GuardUnavailable

NAMESPACE = "weir"
# How often it is looked who is there; sooner when somebody is missed.
LOOK_SECONDS = 2.0
# An actor that does not answer within it is starting, waits for a machine, or is gone.
ANSWER_SECONDS = 5.0


class GuardActor:
    """An engine with its supervisor, in processes that live as long as the actor does."""

    def __init__(self, config: bytes) -> None:
        """`config` is a `process.Config` as JSON. Raises RuntimeError where the guard cannot be loaded."""
        self._host: str = ray.util.get_node_ip_address()
        self._token = secrets.token_urlsafe(32)
        self._is_draining = False
        told = msgspec.structs.replace(
            msgspec.json.decode(config, type=Config), host=self._host, port=0, token=self._token
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "proxy.guard.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(told) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        report = msgspec.json.decode(line, type=Report) if line else Report(error="its process died at once")
        if report.error:
            raise RuntimeError(report.error)
        self._port = report.port
        threading.Thread(target=self._watch, daemon=True).start()

    def place(self) -> dict[str, Any]:
        """The fields of a `places.Place`, but its name."""
        return {"host": self._host, "port": self._port, "token": self._token, "is_draining": self._is_draining}

    def drain(self, is_draining: bool) -> None:
        """Whether proxies should give it no more streams."""
        self._is_draining = is_draining

    def node(self) -> str:
        """Ray's id of the machine that it is on."""
        return str(ray.get_runtime_context().get_node_id())

    def pids(self) -> tuple[int, int]:
        """Of the actor and of its supervisor."""
        return os.getpid(), self._process.pid

    def _watch(self) -> None:
        self._process.wait()
        os._exit(1)  # Ray starts another one


def connect(address: str) -> "Engines":
    """Join the cluster as one that only asks. Raises GuardUnavailable."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        raise GuardUnavailable(
            "a guard on Ray needs a cluster with token authentication: start Ray with RAY_AUTH_MODE=token, and set "
            "that and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH here too"
        )
    if not ray.is_initialized():
        try:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        except Exception as exc:  # of many kinds, none of which says that it is one of Ray's
            said = str(exc).strip().partition("\n")[0]
            raise GuardUnavailable(f"no Ray cluster can be joined at {address}: {type(exc).__name__}: {said}") from exc
    return Engines()


class Engines:
    """The actors of the cluster that this process has joined."""

    def __init__(self) -> None:
        self._own: dict[str, Any] = {}  # actors made here: an actor that dies of its beginning loses its name

    def names_of(self, fleet: str) -> list[str]:
        """Of a fleet's actors, dead ones left out. Raises what Ray raises."""
        found = [name for name in ray.util.list_named_actors() if name.rpartition("-")[0] == fleet]
        return sorted(found, key=lambda name: (len(name), name))

    def raise_fleet(self, fleet: str, replicas: int, config: Config, *, cpus: float, gpus: float) -> list[str]:
        """See that there are so many actors, and none of them drains; the names of those that are new."""
        known, new = self.names_of(fleet), []
        for name in [f"{fleet}-{number}" for number in range(replicas)]:
            if name in known:
                ray.get_actor(name).drain.remote(False)
                continue
            self._own[name] = ray.remote(GuardActor).options(
                name=name, lifetime="detached", num_cpus=cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=0,
                scheduling_strategy="SPREAD",
            ).remote(msgspec.json.encode(config))  # fmt: skip
            new.append(name)
        return new

    def look(self, names: list[str], seconds: float = ANSWER_SECONDS) -> dict[str, Place | str]:
        """Of each name where its engine is, or why that cannot be told; a Gone where it is no use to wait."""
        asked: dict[Any, str] = {}
        found: dict[str, Place | str] = dict.fromkeys(names, "is starting, or waits for a machine that has room")
        for name in names:
            try:
                asked[(self._own.get(name) or ray.get_actor(name)).place.remote()] = name
            except ValueError:
                found[name] = Gone("is gone")
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=seconds) if asked else ([], [])
        for reference in ready:
            found[asked[reference]] = _answer(asked[reference], reference)
        return found

    def drain(self, names: list[str]) -> None:
        """Let proxies give them no more streams. Raises ValueError for a name that nobody has."""
        ray.get([ray.get_actor(name).drain.remote(True) for name in names], timeout=ANSWER_SECONDS)

    def end(self, names: list[str]) -> None:
        """Kill them; streams that they still have move to others."""
        for name in names:
            ray.kill(ray.get_actor(name), no_restart=True)


def _answer(name: str, reference: Any) -> Place | str:
    try:
        return Place(name=name, **ray.get(reference))
    except ray.exceptions.ActorUnavailableError:
        return "is being started again"
    except ray.exceptions.ActorDiedError as exc:
        return Gone(f"has died: {reason_of(exc)}")
    except ray.exceptions.RayError as exc:
        return reason_of(exc)


def reason_of(error: Exception) -> str:
    """The last line of Ray's many, which is the actor's own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def watch(question: Question) -> Iterator[Seen]:
    """What there is, as often as the caller asks."""
    try:
        engines = connect(question.address)
        while True:
            found = engines.look(engines.names_of(question.fleet), LOOK_SECONDS).values()
            yield Seen([place for place in found if isinstance(place, Place)])
    except GuardUnavailable as exc:
        yield Seen(error=str(exc))
    except Exception as exc:  # of the cluster, which is gone, or of Ray itself
        yield Seen(error=reason_of(exc))


def main() -> int:
    """Look for a proxy, until its end of our standard input is closed."""
    lines, answers = os.dup(0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # Ray prints
    question = msgspec.json.decode(_line(lines), type=Question)
    for seen in watch(question):
        answers.write(msgspec.json.encode(seen) + b"\n")
        if seen.error:
            return 1
        if select.select([lines], [], [], LOOK_SECONDS)[0] and not os.read(lines, 4096):
            return 0
    return 0


def _line(descriptor: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (more := os.read(descriptor, 4096)):
        line += more
    return line


if __name__ == "__main__":
    sys.exit(main())
