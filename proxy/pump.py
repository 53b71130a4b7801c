"""The one loop that awaits: it moves data between the stages and decides nothing.

There is no queue and no second task a stream. While the guard is busy, bytes pile up in the
socket, so the next read brings a bigger batch: batching appears by itself under load, and memory
stays bounded.
"""

from collections.abc import Awaitable, Callable, Sequence

from proxy.channel import Batch
from proxy.errors import GUARD_FAILED, Fault
from proxy.guard.protocol import GuardError
from proxy.risk import Risk
from proxy.stream import ModeratedStream

Read = Callable[[], Awaitable[bytes]]
Classify = Callable[[Sequence[Batch]], Awaitable[Sequence[Sequence[Risk]]]]
Write = Callable[[bytes], Awaitable[None]]


async def pump(read: Read, stream: ModeratedStream, classify: Classify, write: Write, *, fails_open: bool) -> None:
    """Run a stream to its end.

    `read` returns b"" at the end of the upstream's answer. Faults of the upstream and the guard end
    the stream as an error; what `write` raises is the client's, and comes out of here.
    """
    try:
        while not stream.is_finished:
            if chunk := await read():
                stream.receive_data(chunk)
            else:
                stream.receive_end()
            await _send(stream, write)  # what needs no verdict
            try:
                await _judge(stream, classify)
            except GuardError as exc:
                if not fails_open:
                    raise Fault(GUARD_FAILED, 503, f"{type(exc).__name__}: {exc}") from exc
                stream.open_gate()
            await _send(stream, write)
    except Fault as fault:
        stream.fail(fault.failure, str(fault))
        await _send(stream, write)


async def _judge(stream: ModeratedStream, classify: Classify) -> None:
    while batches := stream.tokens_to_classify():
        stream.receive_risks(batches, await classify(batches))


async def _send(stream: ModeratedStream, write: Write) -> None:
    if data := stream.data_to_send():
        await write(data)
