"""How far a guard's verdicts in its own number format are from those of the same weights in float32."""

from collections.abc import Sequence

from proxy.benchmark.figures import Parity
from proxy.demo import CONVERSATIONS
from proxy.guard.loader import LoadedGuard
from proxy.guard.qwen3guard import Qwen3GuardStream, Result
from proxy.retokenizer import encode
from proxy.risk import Role

# What is judged, where nothing else is given: texts of every kind of verdict.
TEXTS = tuple(text for one in CONVERSATIONS for text in (one.question, one.answer))
COPIES = 8  # of each text, one behind the other: verdicts deep in a text count too


def verdict_parity(exact: LoadedGuard, other: LoadedGuard, texts: Sequence[str] = TEXTS) -> Parity:
    """Judge every token of the texts with both, as tokens of an answer. Raises GuardError."""
    one, two = Qwen3GuardStream(exact), Qwen3GuardStream(other)
    vocabulary = exact.model.architecture.vocabulary
    tokens = same = 0
    largest = 0.0
    for text in texts:
        # A small vocabulary has other ids; the numbers are compared all the same.
        ids = [token % vocabulary for token in encode(text * COPIES)]
        left, right = _judge(one, ids), _judge(two, ids)
        tokens += len(ids)
        same += sum(a == b for a, b in zip(left["risk_level"], right["risk_level"], strict=True))
        pairs = zip(left["risk_level"], left["risk_prob"], right["risk_level"], right["risk_prob"], strict=True)
        largest = max([largest, *(abs(p - q) for level, p, other_level, q in pairs if level == other_level)])
    return Parity(tokens, same, largest)


def told(parity: Parity, dtype: str) -> str:
    """One line for people."""
    share = 100 * parity.same / max(1, parity.tokens)
    return (
        f"verdicts in {dtype} beside float32: the same level for {parity.same:,} of {parity.tokens:,} tokens "
        f"({share:.2f} %); its probability off by at most {parity.largest_difference:.4f}"
    )


def _judge(guard: Qwen3GuardStream, ids: list[int]) -> Result:
    result, state = guard.stream_moderate_from_ids(ids, Role.ASSISTANT)
    guard.close_stream(state)
    return result
