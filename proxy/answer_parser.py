"""One answer of an upstream: bytes, cut anywhere -> its head, and its body in pieces.

llhttp parses, through httptools, which calls back with bytes and no more: aiohttp's binding to the same parser feeds a
stream object, ten calls a chunk. What cannot be read for certain is refused. No coroutines, so that it can be compiled.
"""

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict

from proxy.errors import BrokenAnswer
from proxy.unpacking import Unpacker

# Some providers' headers carry whole policies.
MAX_FIELD_BYTES = 16 << 10
MAX_FIELDS = 128
# Of all that comes before the body, interim answers with it.
MAX_HEAD_BYTES = 64 << 10
CODINGS = ("gzip", "deflate", "br", "zstd")


class Head:
    """The status and the headers of an answer."""

    def __init__(self, code: int, headers: "CIMultiDict[str]") -> None:
        self.code = code
        self.headers = headers


class AnswerParser:
    """`feed` it what comes; `head` and `take` have what was read of it."""

    def __init__(self, *, has_body: bool = True) -> None:
        """`has_body`: False where another protocol follows the head."""
        self.head: Head | None = None
        self.has_ended = False  # as its framing says
        self.is_last = False  # the connection can serve no other after it
        self.size = 0  # of what came and was not taken, in bytes as they came
        self._has_body = has_body
        self._head_bytes = 0
        self._fields: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []  # few: an empty deque would take ten times the memory
        self._unpacker: Unpacker | None = None
        self._ends_with_connection = False
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        # As browsers and aiohttp read servers; what these let through and could mislead is looked at below.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def feed(self, data: bytes) -> None:
        """Raises BrokenAnswer; what came before the break can still be taken."""
        parser = self._parser
        if parser is None:
            raise BrokenAnswer("the answer was given up")
        if self.head is None:
            if self._head_bytes > MAX_HEAD_BYTES:
                raise BrokenAnswer("a head that does not end")
            self._head_bytes += len(data)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            self.is_last = True
        except HttpParserError as exc:
            self.is_last = True
            raise BrokenAnswer(type(exc).__name__) from exc

    def feed_eof(self) -> None:
        """The connection was closed. Raises BrokenAnswer where that is not how the answer ends."""
        if self._ends_with_connection:
            self.has_ended = True
        if not self.has_ended:
            raise BrokenAnswer("the connection was closed before the end")

    def take(self, limit: int) -> bytes:
        """The next bytes of the body, at most `limit` where no more was fed at once; b"" where none have come.

        Raises BrokenAnswer where they are not packed as the head says.
        """
        if self._unpacker is not None:
            return self._unpack(self._unpacker, limit)
        pieces = self._pieces
        if not pieces:
            return b""
        if len(pieces) == 1:  # as nearly always
            self.size = 0
            return pieces.pop()
        count, size = 1, len(pieces[0])
        while count < len(pieces) and size + len(pieces[count]) <= limit:
            size += len(pieces[count])
            count += 1
        found = b"".join(pieces[:count])
        del pieces[:count]
        self.size -= size
        return found

    @property
    def has_more(self) -> bool:
        """Whether there may be something to take."""
        return bool(self._pieces) or (self._unpacker is not None and self._unpacker.has_more)

    def close(self) -> None:
        """Break the circle with the parser: else each answer waits for the garbage collector."""
        self._parser = None

    def _unpack(self, unpacker: Unpacker, limit: int) -> bytes:
        try:
            while self.has_more:
                piece = b"" if unpacker.has_more else self._pieces.pop(0)
                self.size -= len(piece)
                if found := unpacker.unpack(piece, limit):
                    return found
        except Exception as exc:  # each codec has errors of its own
            raise self._unreadable(f"not packed as it says: {type(exc).__name__}") from exc
        if self.has_ended and unpacker.is_cut:
            raise self._unreadable("what is packed ends too early")
        return b""

    def _unreadable(self, why: str) -> BrokenAnswer:
        """Of a body that cannot be read on: however it goes on, it never ends well."""
        self._pieces.clear()
        self._unpacker, self.size = None, 0
        self.has_ended = self._ends_with_connection = False
        self.close()
        return BrokenAnswer(why)

    # What the parser calls. What these raise ends the answer.

    def on_message_begin(self) -> None:
        if self.head is not None:
            self.is_last = True  # something comes that nobody has asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) + len(value) > MAX_FIELD_BYTES or len(self._fields) >= MAX_FIELDS:
            raise BrokenAnswer("a head that is too large")
        if 0 in value:
            raise BrokenAnswer("a header with a null byte")
        text = value.rstrip(b" \t").decode("utf-8", "surrogateescape")
        self._fields.append((name.decode("utf-8", "surrogateescape"), text))

    def on_headers_complete(self) -> None:
        parser, fields = self._parser, self._fields
        self._fields = []
        if parser is None or self.head is not None:
            return
        code: int = parser.get_status_code()
        if 100 <= code <= 199 and code != 101:
            return
        headers = CIMultiDict(fields)
        codings = [coding.lower() for coding in headers.getall("transfer-encoding", [])]
        if parser.get_http_version() not in ("1.0", "1.1") or codings not in ([], ["chunked"]):
            raise BrokenAnswer("an answer in a version or a coding that nobody asked for")
        self.head = Head(code, headers)
        if not self._has_body:
            self.has_ended = True
            return
        self.is_last = self.is_last or not parser.should_keep_alive()
        self._ends_with_connection = not codings and "content-length" not in headers
        packing = headers.get("content-encoding", "").lower()
        if packing in CODINGS:
            self._unpacker = Unpacker(packing)

    def on_body(self, body: bytes) -> None:
        if self.has_ended:
            self.is_last = True
            return
        self._pieces.append(body)
        self.size += len(body)

    def on_message_complete(self) -> None:
        if self.head is not None:
            self.has_ended = True
