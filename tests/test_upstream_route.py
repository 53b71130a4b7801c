"""The way to an upstream: addresses, TLS that cannot be turned off, and the proxies that the environment names."""

import asyncio
import base64
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from proxy.upstream_connection import UpstreamConnection
from proxy.upstream_route import Route, is_inward, tls_context

# A certificate for localhost that no authority has signed, and its key: nothing else is named by it.
LOCALHOST = Path(__file__).parent / "localhost.pem"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    tls_context.cache_clear()
    yield
    tls_context.cache_clear()


@pytest.fixture
def trusts_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST))


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(LOCALHOST)
    return context


@asynccontextmanager
async def listening(serve: Serve, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Serves on the port that it yields, and leaves no connection open."""
    ends: list[asyncio.StreamWriter] = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)
        await serve(reader, writer)

    server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for end in ends:
            end.transport.abort()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def upstream(*, is_tls: bool = False) -> AsyncIterator[int]:
    """Answers every request; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async with listening(serve, server_tls() if is_tls else None) as port:
        yield port


class Tunnels:
    """A proxy that answers CONNECT: connects, or says what it was told to say."""

    def __init__(self, answer: bytes = ESTABLISHED, *, is_tls: bool = False) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self._tls = server_tls() if is_tls else None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        writer.write(self.answer)
        try:
            if self.answer == ESTABLISHED:
                port = int(head.split(b" ")[1].rpartition(b":")[2])
                there, back = await asyncio.open_connection("127.0.0.1", port)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(reader, back))
                    group.create_task(self._pass(there, writer))
        except* OSError:
            pass
        finally:
            writer.close()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            to.write(data)
        to.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        async with listening(self._serve, self._tls) as port:
            yield port


async def answered(url: str) -> bytes:
    """What an upstream at that URL says."""
    async with asyncio.timeout(20):
        connection = await Route(URL(url)).connect()
        try:
            return await said(connection)
        finally:
            connection.abort()
            await asyncio.sleep(0)


async def said(connection: UpstreamConnection) -> bytes:
    connection.send(REQUEST)
    await connection.head()
    while (body := connection.take()) is None:
        await connection.more()
    return body


async def test_a_host_is_reached_at_whichever_of_its_addresses_answers() -> None:
    async with upstream() as port:  # localhost may have an address of each kind; one of them does not answer here
        assert await answered(f"http://localhost:{port}") == b"hi"


async def test_where_nobody_listens_or_nobody_has_the_name_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await answered(f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(socket.gaierror):
        await answered("http://nobody.invalid")


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address without more on Linux alone")
async def test_e13_a_host_of_which_one_address_is_silent_is_reached_at_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with upstream() as port:
        with ExitStack() as stack:
            silent = stack.enter_context(socket.socket())
            silent.bind(("127.0.0.2", port))
            silent.listen(0)
            for _ in range(4):  # its queue is full: whoever comes hears nothing
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.2", port))
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", port)) for n in (2, 1)]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            assert await answered(f"http://two.test:{port}") == b"hi"


async def test_b6_a_name_that_leads_to_a_link_local_address_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """169.254.169.254 tells a machine's credentials in most clouds."""
    addresses = ["169.254.169.254"]

    def resolve(host: str, port: int, *_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    async with upstream() as port:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with pytest.raises(ConnectionRefusedError, match="link-local"):
            await Route(URL("http://rebound.test")).connect()
        addresses.append("127.0.0.1")
        assert await answered(f"http://rebound.test:{port}") == b"hi"


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        ("169.254.169.254", "metadata.test", True),
        ("fe80::1%eth0", "printer.test", True),
        ("169.254.169.254", "169.254.169.254", False),
        ("fe80::1%2", "fe80::1%eth0", False),
        ("10.0.0.1", "llm.test", False),
        ("127.0.0.1", "localhost", False),
    ],
)
def test_a_link_local_address_is_reached_by_whoever_writes_it(address: str, host: str, expected: bool) -> None:
    assert is_inward(address, host) is expected


@pytest.mark.usefixtures("trusts_localhost")
async def test_tls_is_spoken_with_who_can_be_trusted() -> None:
    async with upstream(is_tls=True) as port:
        assert await answered(f"https://localhost:{port}") == b"hi"
        assert await answered(f"https://127.0.0.1:{port}") == b"hi"


async def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    async with upstream(is_tls=True) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await answered(f"https://localhost:{port}")


@pytest.mark.usefixtures("trusts_localhost")
async def test_a_certificate_of_another_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM)
    async with upstream(is_tls=True) as port:
        addresses = [(*one[:4], ("127.0.0.1", port)) for one in found]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        with pytest.raises(ssl.SSLCertVerificationError):
            await answered(f"https://api.test:{port}")


async def test_a_port_without_tls_is_no_upstream_over_tls() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")

    async with listening(serve, None) as port:
        with pytest.raises(ssl.SSLError):
            await answered(f"https://127.0.0.1:{port}")


@pytest.mark.usefixtures("trusts_localhost")
@pytest.mark.parametrize("is_tls", [False, True], ids=["http proxy", "https proxy"])
async def test_https_goes_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, is_tls: bool) -> None:
    tunnels = Tunnels(is_tls=is_tls)
    async with upstream(is_tls=True) as port, tunnels.running() as proxy:
        scheme = "https" if is_tls else "http"
        monkeypatch.setenv("https_proxy", f"{scheme}://us%40er:pass@localhost:{proxy}")
        assert not Route(URL(f"https://localhost:{port}")).asks_by_url
        assert await answered(f"https://localhost:{port}") == b"hi"
    (head,) = tunnels.heads
    assert head.startswith(b"CONNECT localhost:%d HTTP/1.1\r\nhost: localhost:%d\r\n" % (port, port))
    assert base64.b64encode(b"us@er:pass") in head


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x01",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
async def test_a_proxy_that_makes_no_tunnel_is_no_way(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    async with Tunnels(answer).running() as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy}")
        with pytest.raises(ConnectionError):
            await answered("https://127.0.0.1:9")


async def test_http_is_asked_for_by_its_whole_url(monkeypatch: pytest.MonkeyPatch) -> None:
    async with upstream() as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{proxy}")
        route = Route(URL("http://api.test"))
        assert route.asks_by_url
        assert route.headers == {"proxy-authorization": "Basic " + base64.b64encode(b"user:pass").decode()}
        assert await answered("http://api.test") == b"hi"


async def test_what_no_proxy_names_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:pass@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with upstream() as port:
        assert not Route(URL(f"http://127.0.0.1:{port}")).headers
        assert await answered(f"http://127.0.0.1:{port}") == b"hi"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "127.0.0.1:9", "http://"])
async def test_a_proxy_of_another_kind_is_never_passed_by(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    async with upstream() as port:
        with pytest.raises(ValueError, match="proxy"):
            await answered(f"http://127.0.0.1:{port}")
