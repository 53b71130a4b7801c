"""What the proxy asks of a guard, whatever runs behind it: a thread, a process, many machines.

The proxy opens one guard stream on a request's prompt, forks it once for each moderated channel,
and feeds each fork the tokens of that channel. Every call comes to one verified risk a token
or to a `GuardError`; there is no third outcome, so the caller can fail closed.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.risk import Risk, Role


class GuardError(Exception):
    """No verdict can be had. In the default mode this ends the answer; it never releases text."""


class GuardUnavailable(GuardError):
    """The engine is not running, not ready, or died and could not be replaced in time."""


class UnknownStream(GuardUnavailable):
    """The engine does not have this stream: it must be opened again with all its tokens."""


class GuardOverloaded(GuardError):
    """Admission refused: no room in the key-value cache within the waiting time."""


class GuardOutOfMemory(GuardOverloaded):
    """The device had no memory left for a step. Its streams are tried one by one; who fails alone ends so."""


class GuardTimeout(GuardError):
    """No verdict within the deadline."""


class GuardFault(GuardError):
    """A verdict that cannot be trusted: not finite, too few or too many rows, a foreign stream."""


class SequenceTooLong(GuardError):
    """A prompt of more tokens than the guard's window holds."""


def anew(error: GuardError) -> GuardError:
    """The same error for one more caller: one object for all would collect every caller's frames, texts included."""
    return type(error)(*error.args)


@dataclass(frozen=True, slots=True)
class GuardInfo:
    """Which guard this is: what records and response headers name."""

    model: str  # "Qwen3Guard-Stream-0.6B", "embedded", or a folder's name
    revision: str  # the hub commit, or a short hash of the weights
    window: int  # tokens of one prompt at most; a stream that grows beyond it slides


@dataclass(frozen=True, slots=True)
class Health:
    """The outcome of a real verdict on a canary text."""

    is_ready: bool
    detail: str  # one sentence for people
    seconds: float  # how long the verdict took


# The risks of what was asked, or why there are none.
Heard = Callable[[list[Risk] | Exception], None]


class GuardStream(Protocol):
    """The guard's memory of one text. It outlives an engine restart: the ids are kept and replayed."""

    @property
    def position(self) -> int:
        """Tokens fed so far, the prompt's included."""

    @property
    def slides(self) -> int:
        """How often the text outgrew the guard's window, so that the guard went on with less of the past."""

    def ask(self, position: int, ids: Sequence[int], heard: Heard) -> None:
        """Feed `ids` as tokens `position`, `position + 1`, ...; tell one assistant risk for each. Raises nothing.

        `position` is at most `self.position`; a smaller one takes back the tokens from there on
        (the end of a channel was judged before more of its text came after all).

        `heard` is called once, at once or later, unless `give_up` is before. It gets the risks, a GuardError, or
        a ValueError for a position past the end. After an error the stream is as it was, cut at `position`.
        Whoever waits for it has `answer.classify`.
        """

    def give_up(self) -> None:
        """On what is asked, if it is under way: nobody hears of it any more. It takes back the tokens, too."""

    def fork(self) -> "GuardStream":
        """A second stream with the same past; the two then go separate ways. Only a closed stream has none."""

    def close(self) -> Awaitable[None]:
        """Free the stream's state. Safe to call twice, and after a failure."""


class Guard(Protocol):
    """The service door. Safe for any number of concurrent callers on one event loop."""

    @property
    def info(self) -> GuardInfo: ...

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple[GuardStream, list[Risk]]:
        """Open a stream on `ids`; return it with one risk for each position in `read`.

        `role` picks the heads that `read` is answered from. `owner` names who pays (an API key's
        hash): states are shared and scheduled within it, never across.

        Raises GuardError; then nothing is left open.
        """

    async def health(self) -> Health:
        """A real verdict on a canary text, with a deadline. Never raises."""

    async def close(self) -> None:
        """Stop the engine; open streams fail with GuardUnavailable."""
