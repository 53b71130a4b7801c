"""Section E of docs/reliability.md: what an upstream may do in the middle of an answer."""

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.upstream_route import tls_context
from tests.driver import DONE, WORDS, answer, body, chunk
from tests.e2e.test_faults import outcome, payload
from tests.e2e.test_streams import events
from tests.fakes import RawUpstream, ScriptedGuard, ScriptedUpstream, framed, labels
from tests.servers import weir
from tests.sockets import PATIENCE_SECONDS, ask, http_request, timed
from tests.test_upstream_route import listening

STEP = 1 if "WEIR_LONG" in os.environ else 11
TEXT = "".join(WORDS)
JSON = "application/json"


@pytest.mark.parametrize("resets", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_e1_a_break_at_any_byte_is_told_and_leaks_nothing(framing: str, resets: bool) -> None:
    """The text turns at its third word: whatever is cut off, no client reads that word or takes a part for all."""
    parts = [*(chunk({"content": word}) for word in WORDS[:5]), chunk({}, "stop"), DONE]
    raw = framed(b"".join(parts), framing, size=97)
    finished = len(b"".join(parts[:-1]))
    upstream, guard = RawUpstream(resets=resets), ScriptedGuard()
    async with weir(upstream, guard, policy__notice="") as server:
        for end in [*range(raw.index(b"\r\n\r\n") + 4, len(raw), STEP), len(raw)]:
            upstream.reply = raw[:end]
            for string, said in (("", "".join(WORDS[:5])), ("SSUU", "".join(WORDS[:2]))):
                guard.rule = labels(string)
                reply = await ask(server.url, stream=True)
                found = outcome(reply)
                text = events(reply).content if reply.status == 200 else ""
                assert said.startswith(text)
                is_whole = len(payload(raw[:end], framing)) >= finished
                assert is_whole or found in ("error", "refused", "cut"), end
                assert found != "cut" or string
                assert found not in ("complete", "cut") or text == said
                assert b"four" not in reply.raw or not string
        async with asyncio.timeout(PATIENCE_SECONDS):
            await guard.freed.wait()


async def test_e7_an_answer_may_last_longer_than_every_wait_within_it() -> None:
    slow = ScriptedUpstream(answer(WORDS), pause=0.12)
    waits: Any = {f"upstream__{name}_seconds": 1.0 for name in ("first_byte", "idle", "connect")}
    async with weir(slow, **waits) as server:
        assert events(await ask(server.url, stream=True)).content == TEXT


async def test_e7_an_upstream_whose_host_takes_no_connection_is_given_up_in_time() -> None:
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:  # what is beyond the backlog gets no answer at all
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            async with weir(upstream__base_url=url, upstream__connect_seconds=0.3) as server:
                with timed():
                    reply = await ask(server.url, stream=True)
        finally:
            for filler in fillers:
                filler.close()
    assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
    assert server.guard.slots == 0


class Closing(RawUpstream):
    """Answers no more on a connection that has rested for longer than a moment: as where its close is on its way."""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rested = asyncio.get_running_loop().time()
        first = await reader.read(1)
        if self.hits and asyncio.get_running_loop().time() - rested > 0.3 and first:
            raise ConnectionResetError
        reader.feed_data(first)
        await super()._answer(reader, writer)


async def test_e11_no_connection_is_used_again_that_the_upstream_may_be_closing() -> None:
    upstream = Closing(framed(body({"content": "hi"}), "length", JSON), stays=True)
    async with weir(upstream, upstream__keep_seconds=0.2) as server:
        for _ in range(3):
            assert (await ask(server.url)).status == 200
            await asyncio.sleep(0.5)
        assert upstream.hits == 3


OPENSSL = shutil.which("openssl")


def certificate(folder: Path, days: int, host: str, *, is_signed: bool = True) -> Path:
    """For `host`, by an authority of the folder's own or by itself, with its key."""

    def run(*words: str) -> None:
        subprocess.run([str(OPENSSL), *words], cwd=folder, check=True, capture_output=True)

    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={host}")
    (folder / "ext").write_text(f"subjectAltName=DNS:{host}\n")
    if not (folder / "ca.pem").exists():
        run("req", "-x509", *made[:-1], "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    run("req", "-new", *made, "-keyout", "own.key", "-out", "own.csr")
    signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial") if is_signed else ("-signkey", "own.key")
    run("x509", "-req", "-in", "own.csr", *signer, "-days", str(days), "-extfile", "ext", "-out", "own.pem")
    both = folder / "both.pem"
    both.write_text((folder / "own.pem").read_text() + (folder / "own.key").read_text())
    return both


# Python's standard library reads certificates and makes none.
@pytest.mark.skipif(OPENSSL is None, reason="no openssl to make certificates with")
@pytest.mark.parametrize(
    ("days", "host", "is_signed", "status"),
    [(2, "localhost", True, 200), (-1, "localhost", True, 502), (2, "other.test", True, 502),
     (2, "localhost", False, 502)],
    ids=["right", "expired", "of another host", "signed by itself"],
)  # fmt: skip
async def test_e13_nothing_is_asked_of_an_upstream_whose_certificate_is_not_right(
    days: int, host: str, is_signed: bool, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate(tmp_path, days, host, is_signed=is_signed))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls_context.cache_clear()
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(framed(body({"content": "hi"}), "close", JSON))
            await writer.drain()
            writer.close()

    async with listening(serve, tls) as port, weir(upstream__base_url=f"https://localhost:{port}") as server:
        reply = await ask(server.url, http_request(headers={"Authorization": "Bearer sk-canary"}))
    tls_context.cache_clear()
    assert reply.status == status
    assert status == 200 or reply.error["code"] == "upstream_unreachable"
    assert bool(seen) is (status == 200)


@pytest.mark.parametrize("ends", [False, True], ids=["stays", "ends its side"])
async def test_e14_an_upstream_that_answers_before_it_has_read_a_judged_body_is_heard(ends: bool) -> None:
    error = json.dumps({"error": {"message": "no", "type": "invalid_request_error", "code": "too_large"}}).encode()
    said = framed(error, "length", JSON).replace(b"200 OK", b"413 Content Too Large")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        if ends:
            writer.write_eof()

    async with listening(serve, None) as port, weir(upstream__base_url=f"http://127.0.0.1:{port}") as server:
        # Of megabytes, far more than the buffers between us hold, nobody reads one.
        tools = [{"type": "function", "function": {"name": f"f{n}", "description": "x" * 50_000}} for n in range(120)]
        reply = await ask(server.url, http_request(tools=tools, stream=True))
    assert (reply.status, reply.error["code"]) == (413, "too_large")
