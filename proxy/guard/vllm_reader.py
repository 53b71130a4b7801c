"""A guard that vLLM runs, asked for all of a text each time: it computes what its prefix cache does not have.

Nothing of vLLM is imported here. It is trusted for nothing that can be counted: rows come for the text's last tokens
only, and how many there are, says the cache.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Protocol

from proxy.guard.architecture import Architecture
from proxy.guard.protocol import GuardFault
from proxy.guard.rows import CATEGORIES, LEVELS, rows_of_logits
from proxy.guard.sessions import Disconnected
from proxy.guard.texts import Verdicts
from proxy.risk import Role

Columns = Mapping[Role, Sequence[int]]
# Logits of a token: levels and categories of an answer, then those of a prompt.
WIDTH = sum(LEVELS + len(names) for names in CATEGORIES.values())


def columns_of(shape: Architecture) -> Columns:
    """Where a role's classes, in our order, are among the model's logits, which are in the checkpoint's."""
    prompt = LEVELS + len(CATEGORIES[Role.ASSISTANT])
    return {
        Role.ASSISTANT: [*shape.risk_order, *(LEVELS + at for at in shape.category_order)],
        Role.USER: [
            *(prompt + at for at in shape.prompt_risk_order),
            *(prompt + LEVELS + at for at in shape.prompt_category_order),
        ],
    }


class Llm(Protocol):
    """What is used of vLLM's `AsyncLLM`."""

    @property
    def errored(self) -> bool: ...

    def encode(self, prompt: Any, pooling_params: Any, request_id: str) -> AsyncGenerator[Any, None]: ...


class VllmReader:
    """A `texts.Reader`."""

    def __init__(self, llm: Llm, params: Callable[[bool], Any], columns: Columns) -> None:
        """`params(is_fresh)` makes vLLM's `PoolingParams`: whether the cache is left aside."""
        self._llm, self._params, self._columns = llm, params, columns
        self._last = 0
        self.second_tries = 0  # questions that were asked again without the cache

    async def read(self, ids: Sequence[int], reads: Sequence[int], role: Role, salt: str) -> Verdicts:
        """See `texts.Reader`."""
        prompt = {"type": "token", "prompt_token_ids": list(ids), "cache_salt": salt}
        first = min(reads, default=len(ids))
        logits = await self._logits(prompt, is_fresh=False)
        computed = 0 if logits is None else len(logits)
        if logits is None or len(ids) - len(logits) > first:
            # The cache has tokens that are asked about: of a sibling that said the same, or of a try that was ended.
            self.second_tries += 1
            logits = await self._logits(prompt, is_fresh=True)
            if logits is None or len(logits) != len(ids):
                raise GuardFault(f"{'no' if logits is None else len(logits)} verdicts for {len(ids)} tokens")
            computed += len(logits)
        before = len(ids) - len(logits)
        wanted = logits[[at - before for at in reads]][:, self._columns[role]]
        return Verdicts(rows_of_logits(wanted.tolist(), role), computed)

    async def _logits(self, prompt: Mapping[str, Any], *, is_fresh: bool) -> Any:
        """A tensor [tokens, WIDTH] of the last tokens; None where their number is not what the cache says."""
        self._last += 1
        answer = None
        try:
            asking = self._llm.encode(prompt, self._params(is_fresh), f"weir-{self._last}")
            async with contextlib.aclosing(asking) as answers:
                async for answer in answers:  # noqa: B007 (the last one counts)
                    pass
        except Exception as exc:
            if self._llm.errored:
                raise Disconnected from exc
            raise GuardFault(f"vLLM failed on this input: {type(exc).__name__}") from exc
        if answer is None or getattr(answer, "error", None) is not None:
            raise GuardFault("vLLM gave no verdict")
        logits = answer.outputs.data
        if logits.ndim != 2 or logits.shape[1] != WIDTH:
            raise GuardFault(f"vLLM's model gives no {WIDTH} logits a token")
        is_whole = len(logits) + answer.num_cached_tokens == len(prompt["prompt_token_ids"])
        return logits if is_whole else None
