"""What is fuzzed, and what must hold of any bytes at all. A check raises where something does not."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from adapters.errors import AdapterError
from adapters.strict_json import read_object as read_event_object
from proxy.doors import DOORS as SERVED
from proxy.policy import Policy
from proxy.request_body import BadRequest, dump, read_object
from proxy.request_fields import Terms
from proxy.retokenizer import Retokenizer
from proxy.server_settings import ServerSettings
from proxy.sse import EventDecoder
from proxy.stream import ModeratedStream, Outcome
from tests.doors import DOORS
from tests.driver import Guard, drive
from tests.fakes import words
from tests.judge import judged_ids
from tests.test_sse import oracle

MAX_DEPTH = 64
CUTS = (1, 2, 3, 7, 16, 61)
TERMS = Terms(ServerSettings())


def pieces(data: bytes) -> Iterable[list[bytes]]:
    """The same bytes in several cuts, a few of them picked by the bytes."""
    sizes = {CUTS[sum(data) % len(CUTS)], max(1, len(data) // 2), max(1, len(data))}
    return ([data[at : at + size] for at in range(0, len(data), size)] for size in sorted(sizes))


def is_a_clients_fault(refusal: BadRequest) -> bool:
    return 400 <= refusal.status < 500


def check_sse(data: bytes) -> None:
    """Event streams: any cut reads like the standard's own algorithm over the whole."""
    expected = oracle(data)
    for cut in pieces(data):
        decoder = EventDecoder()
        assert list(itertools.chain.from_iterable(decoder.feed(part) for part in cut)) == expected


def strictly(text: str | bytes) -> Any:
    """JSON by the standard library, without the words that are none."""
    return json.loads(text, parse_constant=lambda word: (_ for _ in ()).throw(ValueError(word)))


def check_body(data: bytes) -> None:
    """Bodies of requests: refused, or read as every reader would, and written anew as the same."""
    try:
        found = read_object(data, max_depth=MAX_DEPTH)
    except BadRequest as refusal:
        if not is_a_clients_fault(refusal):
            raise
        return
    assert found == strictly(data)
    assert strictly(dump(found)) == found
    assert read_object(dump(found), max_depth=MAX_DEPTH) == found


def check_request(data: bytes) -> None:
    """Requests at every door: understood or refused."""
    try:
        body = read_object(data, max_depth=MAX_DEPTH)
    except BadRequest:
        return
    for path in (door.path for door in DOORS.values()):
        try:
            SERVED[path].read(body, TERMS)
        except BadRequest as refusal:
            if not is_a_clients_fault(refusal):
                raise


def check_event(data: bytes) -> None:
    """Events and bodies of an upstream: every door ends, tells how, and says nothing that is not JSON."""
    for door in DOORS.values():
        for is_body in (False, True):
            wrapped = data if is_body else b"data: " + data.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"
            stream, _ = door.stream_of(Policy(debounce=1), is_body=is_body)
            sent = drive(stream, [wrapped], Guard(words("canary")))
            check_sent(stream, sent, is_body=is_body)


def check_stream(data: bytes) -> None:
    """Whole streams of an upstream, at every door."""
    for door in DOORS.values():
        said = []
        for cut in pieces(data):
            stream, _ = door.stream_of(Policy(debounce=1))
            sent = drive(stream, cut, Guard(words("canary")))
            check_sent(stream, sent, is_body=False)
            said.append(stream.outcome)
        # What is flagged before a fault is cut there, if its verdict comes before the fault is read.
        assert len(set(said)) == 1 or set(said) == {Outcome.CUT, Outcome.FAILED}, said


def check_sent(stream: ModeratedStream, sent: bytes, *, is_body: bool) -> None:
    """The canary is nowhere but in names of members and in ids, which are no text: they hold no blank."""
    assert stream.outcome is not Outcome.OPEN
    said = [sent.decode()] if is_body and sent else [event.data for event in oracle(sent)]
    for text in said:
        found = {} if text == "[DONE]" else strictly(text)
        assert isinstance(found, dict)
        found.pop("weir", None)
        assert not any(" canary" in value for value in texts_in(found))


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_in(inner)


def check_text(data: bytes) -> None:
    """Text in deltas: the tokens of the whole, and every character in one of them."""
    text = data.decode("utf-8", "replace")
    for cut in pieces(data):
        retokenizer, at, tokens = Retokenizer(), 0, []
        for part in cut:
            tokens += retokenizer.feed(text[at : at + len(part)])
            at += len(part)
        tokens += retokenizer.feed(text[at:]) + retokenizer.finish()
        assert [token.id for token in tokens] == judged_ids(text)
        assert sum(token.length for token in tokens) == len(text)


def check_json(data: bytes) -> None:
    """JSON of an upstream's events: what the standard library reads, or a refusal that quotes nothing."""
    text = data.decode("utf-8", "replace")
    try:
        found = read_event_object(text)
    except AdapterError as refusal:
        if len(str(refusal)) > 80 or is_object(text):
            raise
        return
    assert repr(found) == repr(strictly(text))


def is_object(text: str) -> bool:
    try:
        return isinstance(strictly(text), dict)
    except (ValueError, RecursionError):
        return False


TARGETS: dict[str, Callable[[bytes], None]] = {
    "sse": check_sse,
    "json": check_json,
    "body": check_body,
    "request": check_request,
    "event": check_event,
    "stream": check_stream,
    "text": check_text,
}
