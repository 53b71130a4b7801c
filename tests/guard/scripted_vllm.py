"""vLLM's `AsyncLLM` as a script over any model, with a prefix cache in blocks, and a worker around it. No torch here.

It computes, as the real one does, what its cache does not have of a text, and at least one token. It can be told to
misbehave: an entry of `faults` is taken by the next call.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy.guard.client import Address
from proxy.guard.listeners import listen
from proxy.guard.process import Config, RemoteGuard
from proxy.guard.protocol import GuardInfo
from proxy.guard.settings import GuardSettings
from proxy.guard.texts import Texts
from proxy.guard.vllm_reader import VllmReader
from proxy.guard.wire_server import WireServer
from proxy.risk import Role

BLOCK_TOKENS = 4
HEADS = ("risk_level_head", "category_head", "query_risk_level_head", "query_category_head")
# Logits [tokens, 23] of a text.
Model = Callable[[list[int]], NDArray[np.float32]]
# Of the small checkpoint, whose classes are in our order.
COLUMNS = {Role.ASSISTANT: range(11), Role.USER: range(11, 23)}


def model_of(reference: Any) -> Model:
    """Of a `checkpoints.Reference`."""

    def logits(ids: list[int]) -> NDArray[np.float32]:
        found = reference.logits(ids)
        return np.concatenate([found[head].numpy() for head in HEADS], axis=1)

    return logits


@dataclass
class Answer:
    """What is read of a `PoolingRequestOutput`."""

    data: Any
    num_cached_tokens: int
    error: object = None

    @property
    def outputs(self) -> "Answer":
        return self


# What becomes of an answer, or is raised instead.
Fault = Callable[[Answer], Any]


@dataclass
class Call:
    ids: list[int]
    salt: str
    is_fresh: bool
    computed: int = 0
    is_aborted: bool = False


class ScriptedLLM:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.errored = False
        self.calls: list[Call] = []
        self.names: set[str] = set()
        self.faults: list[Fault] = []
        self.is_answering = asyncio.Event()
        self.is_answering.set()
        self._cached: set[tuple[str, tuple[int, ...]]] = set()

    async def encode(self, prompt: Mapping[str, Any], pooling_params: bool, request_id: str) -> AsyncGenerator[Any]:
        assert prompt["type"] == "token"
        assert request_id not in self.names
        self.names.add(request_id)
        call = Call(prompt["prompt_token_ids"], prompt["cache_salt"], pooling_params)
        self.calls.append(call)
        try:
            await self.is_answering.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            call.is_aborted = True
            self._compute(call)  # what has begun is in the cache
            raise
        answer = self._compute(call)
        changed = self.faults.pop(0)(answer) if self.faults else answer
        if isinstance(changed, Exception):
            raise changed
        if changed is not None:
            yield changed

    def forget(self) -> None:
        self._cached.clear()

    def _compute(self, call: Call) -> Answer:
        blocks = [(call.salt, tuple(call.ids[:end])) for end in range(BLOCK_TOKENS, len(call.ids) + 1, BLOCK_TOKENS)]
        cached = 0
        for salt, beginning in blocks:
            if call.is_fresh or (salt, beginning) not in self._cached or len(beginning) == len(call.ids):
                break
            cached = len(beginning)
        self._cached.update(blocks)
        call.computed = len(call.ids) - cached
        return Answer(self.model(call.ids)[cached:], cached)


class ScriptedWorker:
    """Texts on a scripted vLLM, behind a socket."""

    def __init__(self, model: Model, path: Path, window: int) -> None:
        self.llm = ScriptedLLM(model)
        self.reader = VllmReader(self.llm, bool, COLUMNS)
        self.path, self.window = path, window
        self.deaths = 0
        self.texts = self._texts()
        self._server: WireServer | None = None

    @property
    def info(self) -> GuardInfo:
        return GuardInfo("small", "1", self.window)

    @asynccontextmanager
    async def guard(self, settings: GuardSettings) -> AsyncIterator["ScriptedGuard"]:
        """Attached to whoever listens at the path, or will."""
        guard = ScriptedGuard(Address(path=str(self.path)), "", settings)
        guard.worker = self
        try:
            await guard.connect(60.0)
            self.llm.calls.clear()
            yield guard
        finally:
            await guard.close()
            self.llm.is_answering.set()

    def _texts(self) -> Texts:
        return Texts(self.reader, self.window, 400, self._die)

    def _die(self) -> None:
        self.deaths += 1

    async def start(self) -> None:
        self.texts = self._texts()
        self._server = WireServer(self.info, 400, self.texts.link)
        await self._server.listen(listen(Config("small", GuardSettings(), path=str(self.path))))

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.close()
        self.path.unlink(missing_ok=True)

    async def restart(self) -> None:
        await self.stop()
        self.llm.forget()
        await self.start()


class ScriptedGuard(RemoteGuard):
    """A guard that knows its worker."""

    worker: ScriptedWorker


@asynccontextmanager
async def scripted_guard(model: Model, settings: GuardSettings) -> AsyncIterator[ScriptedGuard]:
    with TemporaryDirectory() as folder:
        assert settings.window is not None
        worker = ScriptedWorker(model, Path(folder) / "s", settings.window)
        await worker.start()
        try:
            async with worker.guard(settings) as guard:
                yield guard
        finally:
            await worker.stop()


def without_rows(answer: Answer) -> Answer:
    answer.outputs.data = answer.data[1:]
    return answer


def unlike(**fields: Any) -> Fault:
    """An answer with other fields."""

    def change(answer: Answer) -> Answer:
        return replace(answer, **fields)

    return change
