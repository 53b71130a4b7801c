"""Section K of docs/reliability.md: how a server ends."""

import asyncio
import signal
import sys

from tests.driver import WORDS, answer
from tests.e2e.test_streams import events
from tests.reliability.environment import ROOT, environment
from tests.reliability.upstreams import ByUser
from tests.sockets import Reply, ask, connected, http_request

TEXT = "".join(WORDS)


async def asked(url: str, user: str) -> Reply:
    async with connected(url) as client:
        await client.send(http_request(stream=True, user=user))
        return await client.reply()


async def test_k1_a_signal_lets_answers_finish_and_tells_the_rest() -> None:
    """A server of its own: short answers end whole, long ones with an error that says why, and then it exits with 0."""
    endless = [*answer(WORDS)[:6], *[b": x\n\n"] * 1000]
    upstream = ByUser(answers={"short": answer(WORDS), "long": endless}, pause=0.1)
    async with asyncio.timeout(40), upstream.running():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", "--upstream", upstream.url, "--port", "0"),
            env=environment(WEIR_SERVER__DRAIN_SECONDS="3", WEIR_GUARD__PROCESS="false"),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        line = (await process.stderr.readline()).decode()
        url = line.split()[2].removesuffix("/v1")
        ready = await ask(url, http_request(b"", method="GET", path="/readyz"))
        assert ready.status == 200
        async with asyncio.TaskGroup() as group:
            short = [group.create_task(asked(url, "short")) for _ in range(5)]
            long = [group.create_task(asked(url, "long")) for _ in range(2)]
            await asyncio.sleep(0.4)
            process.send_signal(signal.SIGTERM)
            said = await process.stderr.read()
        assert await process.wait() == 0
    assert all(task.result().is_complete and events(task.result()).content == TEXT for task in short)
    for task in long:
        assert not task.result().is_complete
        assert (events(task.result()).error or {})["code"] == "shutting_down"
    assert b"Traceback" not in said
