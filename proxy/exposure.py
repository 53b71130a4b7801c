"""Who can reach us, and whether that was meant."""

import functools
import ipaddress

from proxy.config import ConfigError, Settings
from proxy.upstreams import takes_client_key


@functools.lru_cache(maxsize=256)  # each request names its host, and nearly all the same
def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_identity(settings: Settings) -> None:
    """Raises ConfigError where others can reach a server that lets anybody in, or keys of ours would go upstream."""
    host, auth = settings.server.host, settings.auth
    if not auth.keys and not auth.open and not is_loopback(host):
        raise ConfigError(
            f"[server] host = {host} can be reached by others, and there are no keys: whoever finds the port could use "
            'the upstream. Make a key with "weir key new NAME", or say [auth] open = true (WEIR_AUTH__OPEN=true) where '
            "something before Weir checks who asks."
        )
    if settings.admin.port is not None and settings.admin.key is None and not is_loopback(settings.admin.host):
        raise ConfigError(
            f"[admin] host = {settings.admin.host} can be reached by others, and has no key: set WEIR_ADMIN__KEY."
        )
    several = settings.upstreams
    keyless = [one.name for one in several if takes_client_key(one, is_alone=len(several) == 1)]
    if auth.keys and keyless:
        raise ConfigError(
            "With [[auth.keys]] a client's credential is Weir's own and never goes upstream, so the upstream "
            f'"{keyless[0]}" needs a key of its own, api_key (WEIR_UPSTREAM__API_KEY), or client_key = false where it '
            "takes none."
        )
