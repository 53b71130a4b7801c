"""A guard that runs the model card's own code: `AutoModel` and `stream_moderate_from_ids`, from the checkpoint itself.

For comparison, and for checkpoints that are not of the architecture that our engine knows. The code runs in a thread
of this process, with all that this process may do; it judges one stream at a time and token by token, and the
released one reads the whole text again for each of them.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import transformers

from proxy.guard.architecture import class_of
from proxy.guard.canary import check_guard
from proxy.guard.door import GuardDoor
from proxy.guard.files import CheckpointError, Files, find_files
from proxy.guard.loader import FLOATS, find_device
from proxy.guard.protocol import GuardError, GuardFault, GuardInfo
from proxy.guard.rows import CATEGORIES, winner_row, write_rows
from proxy.guard.sessions import SessionLink, SessionLost
from proxy.guard.settings import GuardSettings
from proxy.risk import RISK_LEVELS, Role

T = TypeVar("T")
# What transformers calls the number format; release 5 has renamed it.
DTYPE = "dtype" if int(transformers.__version__.partition(".")[0]) >= 5 else "torch_dtype"


async def start_remote_code_guard(
    model: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    sha256: Mapping[str, str] | None = None,
    settings: GuardSettings | None = None,
) -> "RemoteCodeGuard":
    """Run the code of a folder or a hub id, which the caller trusts, and let it judge its canaries once.

    Arguments as of `service.start_guard`; with `sha256` each of its Python files must be pinned, too. The caller
    closes the guard. Raises GuardUnavailable (CheckpointError is one) with the reason.
    """

    def load() -> tuple[Any, GuardInfo, int]:
        return load_remote_code(find_files(model, revision, sha256 or {}, with_code=True), dtype, device)

    guard = RemoteCodeGuard(*await asyncio.to_thread(load), settings or GuardSettings())
    await check_guard(guard)
    return guard


def load_remote_code(files: Files, dtype: str, device: str) -> tuple[Any, GuardInfo, int]:
    """The model, what it is called, and the size of its vocabulary. Raises CheckpointError."""
    name = files.name
    if dtype not in FLOATS:
        raise CheckpointError(f"{name}: dtype {dtype} is our own engine's; the model's code takes {', '.join(FLOATS)}")
    code = files.config.get("auto_map")
    if not isinstance(code, dict) or "AutoModel" not in code:
        raise CheckpointError(f"{name}: config.json has no auto_map with an AutoModel: no code comes with it")
    if any("--" in str(place) for place in code.values()):
        raise CheckpointError(f"{name}: its auto_map names the code of another repository, which nobody has pinned")
    window, vocabulary = (files.config.get(key) for key in ("max_position_embeddings", "vocab_size"))
    if not isinstance(window, int) or not isinstance(vocabulary, int):
        raise CheckpointError(f"{name}: config.json must say max_position_embeddings and vocab_size")
    place = find_device(device)
    try:
        model = transformers.AutoModel.from_pretrained(
            str(files.folder), trust_remote_code=True, use_safetensors=True, **{DTYPE: FLOATS[dtype] or "auto"}
        )
        model = model.to(place).eval()
    except Exception as exc:  # whatever code that is not ours may raise
        raise CheckpointError(f"{name}: the model's own code failed: {type(exc).__name__}: {exc}") from exc
    if not callable(getattr(model, "stream_moderate_from_ids", None)):
        raise CheckpointError(f"{name}: {type(model).__name__} has no stream_moderate_from_ids, as in the model card")
    return model, GuardInfo(name, files.revision, window), vocabulary


class RemoteCodeGuard(GuardDoor):
    """A guard with the model's own code in a thread of this process. Made and used on one event loop."""

    def __init__(self, model: Any, info: GuardInfo, vocabulary: int, settings: GuardSettings) -> None:
        super().__init__(settings)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.lane = Lane()
        self.sessions = SessionLink(lambda: RemoteCodeSession(model, self.lane), self.receive)
        window = min(info.window, settings.window or info.window)
        self.connected(self.sessions, GuardInfo(info.model, info.revision, window), vocabulary)

    async def close(self) -> None:
        """See `protocol.Guard`."""
        await super().close()
        await self.sessions.close()
        self.lane.stop()


class RemoteCodeSession:
    """A `sessions.Session`: one `stream_state`."""

    def __init__(self, model: Any, lane: "Lane") -> None:
        self._model, self._lane = model, lane
        self._state: Any = None
        self._is_wanted = True

    async def extend(self, ids: Sequence[int], reads: Sequence[int], role: Role) -> bytes:
        """See `sessions.Session`."""
        try:
            return await self._lane.run(lambda: self._extend(ids, reads, role))
        except asyncio.CancelledError:
            self._is_wanted = False
            raise

    async def close(self) -> None:
        """See `sessions.Session`."""
        self._is_wanted = False
        if self._state is not None and hasattr(self._model, "close_stream"):
            with contextlib.suppress(Exception):  # code that is not ours
                await self._lane.run(lambda: self._model.close_stream(self._state))

    def _extend(self, ids: Sequence[int], reads: Sequence[int], role: Role) -> bytes:
        """In the lane. A first call takes any number of tokens and tells of the last one; the next take one each."""
        rows = []
        wanted = set(reads)
        at = 0
        while at < len(ids):
            if not self._is_wanted:
                raise SessionLost
            end = at + 1 if self._state is not None else min(reads, default=len(ids) - 1) + 1
            tokens = torch.tensor(ids[at] if self._state is not None else ids[:end])
            with torch.no_grad():
                result, self._state = self._model.stream_moderate_from_ids(
                    tokens, role=str(role), stream_state=self._state
                )
            at = end
            if at - 1 in wanted:
                rows.append(_row(result, role))
        return write_rows(rows, role)


class Lane:
    """A thread that does what it is given, one thing after another."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon: code that never returns must not keep the process from ending.
        threading.Thread(target=self._run, name="guard-remote-code", daemon=True).start()

    async def run(self, work: Callable[[], T]) -> T:
        """Its result, or what it raises. Work that nobody waits for any more is left out."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # there is one where there is no error

        def do() -> None:
            if done.cancelled():
                return
            result: T | None = None
            error: Exception | None = None
            try:
                result = work()
            except StopIteration as exc:  # of a generator that has ended; no future takes it
                error = RuntimeError(type(exc).__name__)
            except Exception as exc:
                error = exc
            with contextlib.suppress(RuntimeError):  # a loop that is closed has nobody waiting
                loop.call_soon_threadsafe(settle, result, error)

        self._work.put(do)
        return await done

    def stop(self) -> None:
        """End the thread, when what it does is done."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _row(result: Any, role: Role) -> list[float]:
    """The last token's row; raises GuardFault where it cannot be read."""
    try:
        level, category = str(result["risk_level"][-1]), str(result["category"][-1])
        probability, category_probability = float(result["risk_prob"][-1]), float(result["category_prob"][-1])
        if not (0.0 <= probability <= 1.0 and 0.0 <= category_probability <= 1.0):
            raise GuardFault("the guard's probabilities are not within 0 ... 1")
        return winner_row(
            class_of(level, RISK_LEVELS), probability,
            class_of(category, CATEGORIES[role]), category_probability, role,
        )  # fmt: skip
    except GuardError:
        raise
    except Exception as exc:
        raise GuardFault(f"the model's code gave no verdict that can be read: {type(exc).__name__}") from exc
