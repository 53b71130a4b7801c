"""A body off the wire, against its clock. What bodies may look like: test_request_body.py and e2e/test_requests.py."""

from proxy.incoming import OFF_LOOP_BYTES
from tests.fakes import ScriptedUpstream
from tests.servers import weir
from tests.sockets import ask, http_request


async def test_a_body_is_read_alike_on_the_loop_and_off_it() -> None:
    async with weir(ScriptedUpstream(status=418)) as server:
        for size in (10, OFF_LOOP_BYTES + 1):
            await ask(server.url, http_request(user="x" * size))
            assert len(server.upstream.requests[-1]["body"]) > size
        broken = http_request(b'{"user": "' + b"x" * OFF_LOOP_BYTES)
        assert (await ask(server.url, broken)).status == 400
