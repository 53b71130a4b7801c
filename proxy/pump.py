"""The one loop that awaits: it moves data between the stages and decides nothing.

There is no queue and no second task a stream. While the guard is busy, bytes pile up in the
socket, so the next read brings a bigger batch: batching appears by itself under load, and memory
stays bounded.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from proxy.channel import Batch
from proxy.errors import INTERNAL, Fault, guard_failure
from proxy.guard.protocol import GuardError
from proxy.risk import Risk
from proxy.stream import ModeratedStream

Read = Callable[[], Awaitable[bytes]]
Classify = Callable[[Sequence[Batch]], Awaitable[Sequence[Sequence[Risk]]]]
Write = Callable[[bytes], Awaitable[None]]
T = TypeVar("T")


class Run(Protocol):
    """Does work elsewhere, so that the event loop goes on meanwhile; where it is given none, at once."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


async def at_once(work: Callable[[], T]) -> T:
    return work()


async def pump(
    read: Read, stream: ModeratedStream, classify: Classify, write: Write, *, fails_open: bool, aside: Run = at_once
) -> None:
    """Run a stream to its end.

    `read` returns b"" at the end of the upstream's answer. Faults of the upstream and the guard end
    the stream as a failure; what `write` raises is the client's, and comes out of here. `aside` is for
    steps of large answers.
    """
    has_more = True
    while has_more and not stream.is_finished:
        has_more = await _receive(stream, read, aside)
        await _send(stream, write, aside)  # what needs no verdict
        try:
            await _judge(stream, classify, write, aside)
        except GuardError as exc:
            error = f"{type(exc).__name__}: {exc}"
            if fails_open:
                stream.open_gate(error)
            else:
                stream.fail(guard_failure(exc), error)
            await _send(stream, write, aside)
    if not stream.is_finished:
        stream.fail(INTERNAL, "all was read and judged, and still the answer has not ended")
        await _send(stream, write, aside)


async def _receive(stream: ModeratedStream, read: Read, aside: Run) -> bool:
    """Take one chunk; false at the end of them."""
    try:
        chunk = await read()
    except Fault as fault:
        stream.receive_break(fault.failure, str(fault))
        return False
    work = partial(stream.receive_data, chunk) if chunk else stream.receive_end
    if not stream.is_large:
        work()
        return bool(chunk)
    try:
        await aside(work)
    except Fault as fault:
        stream.fail(fault.failure, str(fault))
    return bool(chunk)


async def _judge(stream: ModeratedStream, classify: Classify, write: Write, aside: Run) -> None:
    while batches := stream.tokens_to_classify():
        stream.receive_risks(batches, await classify(batches))
        await _send(stream, write, aside)
    await _send(stream, write, aside)


async def _send(stream: ModeratedStream, write: Write, aside: Run) -> None:
    try:
        data = await aside(stream.data_to_send) if stream.is_large else stream.data_to_send()
    except Fault as fault:
        stream.fail(fault.failure, str(fault))
        data = stream.data_to_send()
    if data:
        await write(data)
