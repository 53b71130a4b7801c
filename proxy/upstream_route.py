"""The way to an upstream: directly or through the proxy that the environment names, with TLS for https."""

import asyncio
import base64
import ipaddress
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from functools import cache
from typing import cast

import aiohappyeyeballs
from yarl import URL

from proxy.upstream_connection import UpstreamConnection

# When the next address of a host is tried beside one that does not answer (RFC 8305).
NEXT_ADDRESS_SECONDS = 0.25


@cache
def tls_context() -> ssl.SSLContext:
    """Verifies against the system's authorities, or those that SSL_CERT_FILE names. Nothing turns that off."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Route:
    """To the origin of a URL."""

    def __init__(self, url: URL) -> None:
        self._origin = url
        proxy = _proxy_for(url)
        self._proxy = URL(proxy) if proxy is not None else None
        self._is_tls = url.scheme == "https"
        # What a proxy forwards is asked for by the whole URL; through a tunnel, and without one, by its path.
        self.asks_by_url = self._proxy is not None and not self._is_tls
        self.headers: Mapping[str, str] = self._authorization() if self.asks_by_url else {}

    async def connect(self) -> UpstreamConnection:
        """Raises OSError, ValueError."""
        if self._proxy is None:
            return await _connect(self._origin)
        if self._proxy.scheme not in ("http", "https") or self._proxy.host is None:
            raise ValueError("the environment names a proxy that is no http:// URL")
        connection = await _connect(self._proxy)
        if not self._is_tls:
            return connection
        try:
            await self._tunnel(connection)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _tunnel(self, connection: UpstreamConnection) -> None:
        place = f"{self._origin.host_subcomponent}:{self._origin.port}"
        lines = [f"CONNECT {place} HTTP/1.1", f"host: {place}"]
        lines += [f"{name}: {text}" for name, text in self._authorization().items()]
        connection.send("\r\n".join([*lines, "", ""]).encode(), opens_tunnel=True)
        head = await connection.head()
        if head.code != 200 or not connection.is_clean:
            raise ConnectionRefusedError(f"the proxy answered with status {head.code}")
        connection.end()
        assert connection.transport is not None  # is_clean
        name, inside = self._origin.raw_host, cast(asyncio.Protocol, connection)
        connection.transport = await asyncio.get_running_loop().start_tls(
            connection.transport, inside, tls_context(), server_hostname=name
        )

    def _authorization(self) -> Mapping[str, str]:
        """Of the proxy's URL; ~/.netrc is never asked."""
        if self._proxy is None or self._proxy.user is None:
            return {}
        pair = f"{self._proxy.user}:{self._proxy.password or ''}".encode()
        return {"proxy-authorization": f"Basic {base64.b64encode(pair).decode()}"}


async def _connect(to: URL) -> UpstreamConnection:
    loop = asyncio.get_running_loop()
    assert to.raw_host is not None  # of settings that were checked, and of a proxy that was
    found = await loop.getaddrinfo(to.raw_host, to.port, type=socket.SOCK_STREAM)
    addresses = [one for one in found if not is_inward(str(one[4][0]), to.raw_host)]
    if not addresses:
        raise ConnectionRefusedError("the name leads to a link-local address")
    # The event loop's own way to connect tries one address after another.
    connected = await aiohappyeyeballs.start_connection(
        addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1
    )
    tls = tls_context() if to.scheme == "https" else None
    name = to.raw_host if tls is not None else None
    try:
        _, connection = await loop.create_connection(protocol, sock=connected, ssl=tls, server_hostname=name)
    except BaseException:
        connected.close()
        raise
    return cast(UpstreamConnection, connection)


def protocol() -> asyncio.Protocol:
    """A connection to be: it has a protocol's methods, and is compiled, so it can have no base class that is not."""
    return cast(asyncio.Protocol, UpstreamConnection())


def is_inward(address: str, host: str) -> bool:
    """Whether a name leads to a link-local address, where clouds keep the credentials of a machine. Whoever means that
    writes the address.
    """
    bare = address.partition("%")[0]
    return host.partition("%")[0] != bare and ipaddress.ip_address(bare).is_link_local


def _proxy_for(url: URL) -> str | None:
    """HTTPS_PROXY and its kin."""
    if urllib.request.proxy_bypass(f"{url.host}:{url.port}"):
        return None
    return urllib.request.getproxies().get(url.scheme)
