"""What one read brings is parsed in turns, in order, whatever it is and however it ends."""

import asyncio
from typing import Any

from proxy.in_parts import PARSED_BYTES
from tests.driver import WORDS, answer
from tests.e2e.test_streams import events
from tests.fakes import RawUpstream, ScriptedUpstream, framed
from tests.servers import weir
from tests.sockets import ask, connected, http_request
from tests.turns import watched

TEXT = "".join(WORDS)
DROPS = framed(b":" + b"x" * 200_000 + b"\n" + b"".join(answer(WORDS)), "chunked", size=1)


async def test_an_answer_in_chunks_of_one_byte_is_read_in_short_turns() -> None:
    async with watched(RawUpstream(DROPS)) as server:
        assert events(await ask(server.url, stream=True)).content == TEXT
        assert server.longest < 0.02  # 2 to 3 ms; in one turn a read, 30


async def test_an_answer_that_its_connection_does_not_outlive_is_whole() -> None:
    """The last of it is not yet parsed when the connection is closed."""
    async with weir(RawUpstream(DROPS)) as server:
        for _ in range(3):
            assert events(await ask(server.url, stream=True)).content == TEXT


async def test_what_stands_behind_an_answer_in_the_same_read_meets_nobody() -> None:
    end = framed(b"".join(answer(WORDS)), "chunked")
    upstream = RawUpstream(end + framed(b"data: secret\n\n" * PARSED_BYTES, "length"), stays=True)
    async with weir(upstream) as server:
        for _ in range(5):
            assert events(await ask(server.url, stream=True)).content == TEXT
        assert upstream.hits == 5


async def test_pipelined_requests_of_many_reads_are_all_answered_in_order() -> None:
    upstream = ScriptedUpstream(answer(WORDS))
    async with weir(upstream) as server, connected(server.url) as client, asyncio.TaskGroup() as group:
        requests = [http_request(stream=True, user=f"{number}", metadata={"x": "x" * 9000}) for number in range(60)]
        sending: Any = group.create_task(client.send(b"".join(requests)))
        async with asyncio.timeout(60):
            while client.received.count(b"data: [DONE]") < 60:
                assert await client.more()
            await sending
    users = [one["body"].partition(b'"user":"')[2].partition(b'"')[0] for one in upstream.requests]
    assert users == [b"%d" % number for number in range(60)]
