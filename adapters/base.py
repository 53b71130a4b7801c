"""The words between the dialects and the machine: events, keys, pieces, and what an adapter does.

A dialect's adapter turns each event of one upstream response into pieces, in order, and turns
released pieces into new events. It never forwards an upstream event: what leaves is rebuilt from
the fields that the adapter knows and the text that was released.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple, Protocol, final


class Record:
    """A value: nothing of it changes, and it equals another of the same fields.

    Of what is made for each chunk. Not a dataclass, which could not be made by compiled code without Python's help.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._values()}"

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])


@final
class Event(Record):
    """One server-sent event after framing: the `data` lines joined by a newline, and its type."""

    __match_args__ = ("data", "type")
    __slots__ = __match_args__

    def __init__(self, data: str, type: str = "") -> None:
        self.data: Final = data
        self.type: Final = type


class Kind(Enum):
    """What sort of text a channel carries; the guard reads reasoning in another frame than content."""

    CONTENT = "content"
    REASONING = "reasoning"
    NAME = "name"  # a tool's name: useless in parts, so it is released whole
    ARGUMENTS = "arguments"  # JSON text, whose escapes can spell what the raw characters hide
    OBJECT = "object"  # a JSON value that is complete in its one delta, judged as its text


# What a client can make nothing of in parts.
WHOLE_KINDS = frozenset({Kind.NAME, Kind.OBJECT})
# What is JSON, and so judged as its escapes spell it, too.
JSON_KINDS = frozenset({Kind.ARGUMENTS, Kind.OBJECT})


NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Key(NamedTuple):
    """One moderated text: a channel ("content", "tool_calls.0.arguments") of a choice."""

    choice: int
    channel: str


def call_of(key: Key) -> str | None:
    """The tool call that a channel is a part of: "tool_calls.0", "function_call"; None for any other text."""
    head, *rest = key.channel.split(".", 2)
    if not rest or head not in ("tool_calls", "function_call"):
        return None
    return f"{head}.{rest[0]}" if head == "tool_calls" else head


@dataclass(frozen=True, slots=True)
class Logprob:
    """One entry of a `logprobs` list, beside the bytes of the text that it repeats."""

    text: bytes
    entry: Mapping[str, Any]


@final
class Delta(Record):
    """Text appended to one key.

    `source` is the adapter's own note of the event it came from (its envelope); `extra` the
    adapter's own non-text fields that ride with the first character (a tool call's id). Both are
    opaque to everyone else. `logprobs`, where given, repeat `text` byte for byte.
    """

    __match_args__ = ("key", "kind", "text", "source", "extra", "logprobs")
    __slots__ = __match_args__

    def __init__(
        self,
        key: Key,
        kind: Kind,
        text: str,
        source: Any = None,
        extra: Mapping[str, Any] = NOTHING,
        logprobs: tuple[Logprob, ...] = (),
    ) -> None:
        self.key: Final = key
        self.kind: Final = kind
        self.text: Final = text
        self.source: Final = source
        self.extra: Final = extra
        self.logprobs: Final = logprobs

    def beside(self, logprobs: tuple[Logprob, ...]) -> "Delta":
        return Delta(self.key, self.kind, self.text, self.source, self.extra, logprobs)

    def split(self, at: int) -> "tuple[Delta, Delta]":
        """Cut after `at` characters, 0 < at < len(text). An entry stays where its last byte is."""
        covered, kept = 0, 0
        limit = len(self.text[:at].encode("utf-8", "surrogatepass"))
        for logprob in self.logprobs:
            if covered + len(logprob.text) > limit:
                break
            covered += len(logprob.text)
            kept += 1
        head = Delta(self.key, self.kind, self.text[:at], self.source, self.extra, self.logprobs[:kept])
        return head, Delta(self.key, self.kind, self.text[at:], self.source, NOTHING, self.logprobs[kept:])

    def parts(self, size: int) -> "list[Delta]":
        """In pieces of `size` characters; what clients can make nothing of in parts, and what has logprobs, is one."""
        if len(self.text) <= size or self.kind in WHOLE_KINDS or self.logprobs:
            return [self]
        texts = [self.text[start : start + size] for start in range(0, len(self.text), size)]
        first = Delta(self.key, self.kind, texts[0], self.source, self.extra)
        return [first, *(Delta(self.key, self.kind, text, self.source) for text in texts[1:])]


@final
class Opaque(Record):
    """Something without model text that keeps its place: a role, usage, an empty delta.

    `choice` is None for what belongs to the whole response and so waits for every choice.
    """

    __match_args__ = ("choice", "payload", "source")
    __slots__ = __match_args__

    def __init__(self, choice: int | None, payload: Mapping[str, Any], source: Any = None) -> None:
        self.choice: Final = choice
        self.payload: Final = payload
        self.source: Final = source


@final
class Finish(Record):
    """The upstream says that a choice is complete, and why."""

    __match_args__ = ("choice", "reason", "source")
    __slots__ = __match_args__

    def __init__(self, choice: int, reason: str, source: Any = None) -> None:
        self.choice: Final = choice
        self.reason: Final = reason
        self.source: Final = source


@final
class End(Record):
    """The upstream says that the response is complete (`[DONE]`, or the end of a whole body)."""

    __slots__ = ()


Piece = Delta | Opaque | Finish | End


@final
class Note(Record):
    """A risk as clients read it: the worst of the tokens that cover a span of one channel.

    `start` and `end` are offsets in characters of the channel's text.
    """

    __match_args__ = ("channel", "start", "end", "risk_level", "category", "probability")
    __slots__ = __match_args__

    def __init__(
        self, channel: str, start: int, end: int, risk_level: str, category: str | None, probability: float
    ) -> None:
        self.channel: Final = channel
        self.start: Final = start
        self.end: Final = end
        self.risk_level: Final = risk_level  # "Safe", "Controversial", "Unsafe"
        self.category: Final = category  # None where Safe
        self.probability: Final = probability  # of the level, in [0, 1]


@dataclass(frozen=True, slots=True)
class Assessment:
    """One side of a conversation as a whole: the prompt, or everything said in a choice."""

    is_flagged: bool
    worst: Note | None
    scores: Mapping[str, float] = field(default_factory=dict)  # category -> highest probability of harm seen


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a choice when it ends."""

    notes: tuple[Note, ...] = ()  # the worst of each channel
    prompt: Assessment | None = None
    answer: Assessment | None = None
    scanned: str | None = None  # "partial" or "none" where the guard failed and the text passed all the same


@dataclass(frozen=True, slots=True)
class Block:
    """Our decision to end a choice: where, why, and what the client is told in its place."""

    choice: int
    flagged: Note  # `start` is the offset of the first character withheld
    tokens: int  # tokens of that channel judged up to the decision
    notice: str = ""  # a line for the user, or nothing


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts that we estimate because the upstream was cancelled before it sent its own."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a response ends as an error. Fixed texts of ours, never the upstream's."""

    message: str
    type: str = "api_error"
    code: str | None = None
    limit: str = ""  # that was met; for metrics


@dataclass(frozen=True, slots=True)
class Notations:
    """Which annotations to write beside the text."""

    weir: bool = True
    openai: bool = False  # the `moderation` object of OpenAI's inline moderation
    azure: bool = False  # content_filter_results and prompt_filter_results, where the dialect has choices


@dataclass(frozen=True, slots=True)
class Options:
    """What an adapter has to know of the request that it answers."""

    model: str  # as the client asked for it: used where the upstream's own name is unusable
    choices: int = 1
    guard_model: str = ""
    notations: Notations = Notations()
    include_usage: bool = True  # a stream says the counts that its upstream gives unasked
    allow_unscanned: bool = False  # let through what no one judged (audio data, top_logprobs)
    echo: Mapping[str, Any] = field(default_factory=dict)  # the request's own fields that an answer repeats


class Adapter(Protocol):
    """One response in one dialect, streamed or whole. An instance serves one response."""

    @property
    def dropped(self) -> int:
        """Fields and entries left out because they could carry text that nobody judged."""

    def decode(self, event: Event) -> list[Piece]:
        """Raises AdapterError (unreadable) or UpstreamReportedError."""

    def encode(self, piece: Delta | Opaque, note: Note | None) -> list[Event]:
        """A released piece; `note` is None where nothing is known or wanted of its text."""

    def encode_finish(self, finish: Finish, report: Report) -> list[Event]: ...

    def encode_block(self, block: Block, report: Report) -> list[Event]: ...

    def encode_usage(self, usage: Usage) -> list[Event]: ...

    def encode_end(self) -> list[Event]: ...

    def encode_failure(self, failure: Failure) -> list[Event]: ...


# A factory for each shape of an endpoint: (options) -> adapter.
class AdapterFactory(Protocol):
    def __call__(self, options: Options) -> Adapter: ...
