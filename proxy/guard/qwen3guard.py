"""The model card's own API over this engine: a drop-in for `AutoModel.from_pretrained(...)` there.

One stream at a time, in the caller's thread, without asyncio: for scripts and notebooks. The verdicts are
those of the model card's loop; the text before a token is not read again.
"""

from collections.abc import Iterable
from typing import Any, TypedDict

from proxy.guard.commands import Close, Command, Feed, Open
from proxy.guard.devices import make_runner
from proxy.guard.engine import Engine
from proxy.guard.limits import Limits
from proxy.guard.loader import EMBEDDED, LoadedGuard, load_guard
from proxy.guard.protocol import SequenceTooLong
from proxy.guard.rows import read_rows
from proxy.guard.settings import GuardSettings
from proxy.risk import PROMPT_CATEGORIES, RESPONSE_CATEGORIES, RISK_LEVELS, Risk, Role

# Arguments of `AutoModel.from_pretrained` that change nothing here.
HARMLESS = frozenset({"attn_implementation", "low_cpu_mem_usage", "use_safetensors"})
# The clock stands still here, and any stream gives way to the one that is called: nothing ever waits.
LIMITS = Limits(idle_seconds=0.0)


class Result(TypedDict):
    """One entry a token of the call, in order."""

    risk_level: list[str]
    risk_prob: list[float]
    category: list[str]
    category_prob: list[float]


class StreamState:
    """One conversation's state. Hand it to the next call; `close_stream` frees it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.position = 0  # tokens so far


class Qwen3GuardStream:
    """Qwen3Guard-Stream as its model card uses it."""

    def __init__(self, loaded: LoadedGuard) -> None:
        runner = make_runner(loaded.model, GuardSettings(limits=LIMITS))
        budget = runner.default_budget_bytes()
        self.info = loaded.info
        self._window = min(loaded.info.window, runner.tokens_in(budget))
        self._engine = Engine(runner, window=self._window, budget_bytes=budget, limits=LIMITS)
        self._last_number = 0
        self._vocabulary = loaded.model.architecture.vocabulary
        self.response_risk_level_map = self.query_risk_level_map = dict(enumerate(map(str, RISK_LEVELS)))
        self.response_category_map = dict(enumerate(map(str, RESPONSE_CATEGORIES)))
        self.query_category_map = dict(enumerate(map(str, PROMPT_CATEGORIES)))

    @classmethod
    def from_pretrained(
        cls,
        model: str = EMBEDDED,
        *,
        revision: str | None = None,
        dtype: Any = "auto",
        torch_dtype: Any = None,
        device_map: Any = "cpu",
        trust_remote_code: bool = False,
        **others: Any,
    ) -> "Qwen3GuardStream":
        """`model` is a folder, a hub id, or "embedded". Raises CheckpointError.

        `dtype` (or `torch_dtype`) is a torch dtype or its name. `device_map` is a device or "auto".
        `trust_remote_code` is accepted and ignored: no code of a checkpoint ever runs here.
        """
        if unknown := sorted(set(others) - HARMLESS):
            raise TypeError(f"from_pretrained() does not support {', '.join(unknown)}")
        wanted = str(torch_dtype if torch_dtype is not None else dtype).removeprefix("torch.")
        return cls(load_guard(str(model), revision=revision, dtype=wanted, device=_device(device_map)))

    def eval(self) -> "Qwen3GuardStream":
        """Returns the model: there is no other mode."""
        return self

    def stream_moderate_from_ids(
        self, token_ids: Any, role: str, stream_state: StreamState | None = None
    ) -> tuple[Result, StreamState]:
        """Judge the next tokens of a conversation; None as state begins a new one.

        `token_ids` is one id, a list of ids, or a 0- or 1-dimensional tensor of them. `role` is "user" or
        "assistant". The result's lists have one entry for each of these tokens; the model card reads `[-1]`.
        Raises SequenceTooLong, GuardFault, and ValueError for a role or an id that does not exist.
        """
        ids = self._check(token_ids)
        asked = Role(role)
        self._last_number += 1
        ticket = self._last_number
        command: Command
        if stream_state is None:
            stream_state = StreamState(ticket)
            self._fits(len(ids))
            command = Open(ticket, ticket, ids, list(range(len(ids))), asked, "")
        else:
            self._fits(stream_state.position + len(ids))
            command = Feed(ticket, stream_state.number, stream_state.position, ids, asked)
        risks = self._ask(command)
        stream_state.position += len(ids)
        return _result(risks), stream_state

    def close_stream(self, stream_state: StreamState | None) -> None:
        """Free a conversation's state. Safe to call twice, and with None."""
        if stream_state is not None:
            self._engine.apply(Close(stream_state.number), 0.0)

    def _check(self, token_ids: Any) -> list[int]:
        values = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        ids = [int(value) for value in values] if isinstance(values, Iterable) else [int(values)]
        if not ids or not 0 <= min(ids) <= max(ids) < self._vocabulary:
            raise ValueError(f"token ids must be one or more within 0 ... {self._vocabulary - 1}")
        return ids

    def _fits(self, tokens: int) -> None:
        if tokens > self._window:
            raise SequenceTooLong(f"{tokens} tokens; the guard's window holds {self._window}")

    def _ask(self, command: Open | Feed) -> list[Risk]:
        outcome = self._engine.apply(command, 0.0)
        while outcome is None:
            outcome = next(iter(self._engine.step(0.0)), None)
        if outcome.error is not None:
            if isinstance(command, Open):
                self._engine.apply(Close(command.stream), 0.0)
            raise outcome.error
        return read_rows(outcome.rows, len(command.ids), command.role)


def _device(device_map: Any) -> str:
    if isinstance(device_map, dict):
        device_map = next(iter(device_map.values()), None)
    return "auto" if device_map is None else str(device_map)


def _result(risks: list[Risk]) -> Result:
    return {
        "risk_level": [str(risk.level) for risk in risks],
        "risk_prob": [risk.probability for risk in risks],
        "category": [str(risk.category) for risk in risks],
        "category_prob": [risk.category_probability for risk in risks],
    }
