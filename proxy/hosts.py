"""By which names a server may be asked.

A page in a browser can give a name of its own the address 127.0.0.1 (DNS rebinding), and then asks whatever listens
there as if it were the page's own server. The browser still tells that name, in `Host`. So where there are no keys, and
the address is a loopback one, only names are answered that no page can have.
"""

import re
from fnmatch import fnmatchcase

from proxy.errors import ApiError
from proxy.exposure import is_loopback
from proxy.settings import Settings

# Below these nobody can register a name: host.docker.internal is how a container calls its host.
OWN_DOMAINS = (".localhost", ".internal")
HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Hosts:
    def __init__(self, settings: Settings) -> None:
        self.adopt(settings)

    def adopt(self, settings: Settings) -> None:
        server = settings.server
        self._patterns = tuple(pattern.lower() for pattern in server.allowed_hosts)
        self._is_any = not self._patterns and (bool(settings.auth.keys) or not is_loopback(server.host))

    def check(self, host: str | None, origin: str | None) -> None:
        """`Host` and `Origin` as a request has them. Raises ApiError."""
        if self._is_any:
            return
        if not self._is_allowed(name_in(host or "")):
            raise ApiError(
                403,
                "This server is not asked by that name: see [server] allowed_hosts.",
                "permission_error",
                code="wrong_host",
            )
        scheme, _, page = (origin or "").lower().partition("://")
        # Other schemes are an extension's or an app's own, which no page can make up.
        if scheme in ("http", "https", "null") and not self._is_allowed(name_in(page)):
            raise ApiError(403, "Another page asked for it.", "permission_error", code="wrong_origin")

    def _is_allowed(self, name: str) -> bool:
        if not self._patterns:
            return is_loopback(name) or name.endswith(OWN_DOMAINS)
        return any(fnmatchcase(name, pattern) for pattern in self._patterns)


def name_in(host: str) -> str:
    """Of a `Host` header, without the port; empty where there is none to be read."""
    found = HOST.fullmatch(host)
    return found[1].strip("[]").rstrip(".").lower() if found else ""
