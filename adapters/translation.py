"""An upstream of another dialect behind the door of chat: its events -> chunks of chat -> pieces.

A translator says each event in the words of chat and decides nothing: the chunks that it makes are
read by the reader of chat, which checks every name and number, and takes every text for a text to be
judged. So what the other dialect calls its fields cannot open a way around the guard.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

from adapters.base import Event, Opaque, Options, Piece
from adapters.errors import AdapterError
from adapters.openai_chat import DONE, ChatStream
from adapters.openai_chat_body import ChatBody
from adapters.openai_chat_reader import ChatReader, Shape

CHUNK = Shape("chat.completion.chunk", "delta", is_whole=False)
# A body is read as the stream that would say it.
BODY = Shape("chat.completion", "delta", is_whole=False)

Chunk = dict[str, Any]


class Translator(Protocol):
    """The events of one response in another dialect."""

    def __init__(self, options: Options) -> None: ...

    @property
    def dropped(self) -> int: ...

    @property
    def is_over(self) -> bool:
        """The upstream has said that the response is complete, and has not just stopped."""

    def read(self, event: Event) -> Iterator[Chunk]:
        """Raises AdapterError, UpstreamReportedError."""

    def read_body(self, event: Event) -> Iterator[Chunk]: ...


class TranslatedReader(ChatReader):
    """Reads one response through a translator."""

    def __init__(self, options: Options, shape: Shape, translator: Translator) -> None:
        super().__init__(options, shape)
        self._translator = translator
        self._is_body = shape is BODY

    @property
    def dropped(self) -> int:
        return super().dropped + self._translator.dropped

    def read(self, event: Event) -> list[Piece]:
        if self._is_over or event.data.strip() == DONE:  # no word of these dialects; some gateways add it
            return []
        chunks = self._translator.read_body(event) if self._is_body else self._translator.read(event)
        pieces = [piece for chunk in chunks for piece in self.take(chunk)]
        if self._is_body and len(self._finished) < self._choices:
            raise AdapterError("a body ends before all its choices do")
        if self._is_body or self._translator.is_over:
            pieces += self.end()
        # These dialects always count; a client of chat gets events of counts alone where it asked for them.
        is_counted = self._is_body or self._options.include_usage
        return [piece for piece in pieces if is_counted or not isinstance(piece, Opaque) or piece.choice is not None]


class TranslatedStream(ChatStream):
    """One streamed response."""

    translator: ClassVar[type[Translator]]  # of the dialect

    def _open_reader(self, options: Options) -> ChatReader:
        return TranslatedReader(options, CHUNK, self.translator(options))

    def decode(self, event: Event) -> list[Piece]:
        return self._reader.read(event)


class TranslatedBody(ChatBody):
    """One response in one body."""

    translator: ClassVar[type[Translator]]  # of the dialect

    def _open_reader(self, options: Options) -> ChatReader:
        return TranslatedReader(options, BODY, self.translator(options))
