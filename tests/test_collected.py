"""A client that gets all at once takes whatever comes, and is never full."""

from proxy.collected import Collected


async def test_it_keeps_what_is_written_in_order() -> None:
    client = Collected()
    client.write(b"one")
    client.beat()
    client.write(b" two")
    await client.drain()
    assert client.chunks == [b"one", b" two"]
    assert not client.is_full
