"""Who asks. With keys of our own, exactly one of them; without, whoever can reach the port."""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from proxy.auth_settings import AuthSettings
from proxy.errors import ApiError
from proxy.key_limits import KeyLimits, OwnUsage, Usage

# Where clients put a credential: OpenAI, Azure, Anthropic.
CREDENTIALS = ("authorization", "api-key", "x-api-key")
# Tells a key of ours from others', in a leak scanner for one.
KEY_PREFIX = "weir-"
KEY_BYTES = 32

UsageOf = Callable[[str], Usage]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked, and what they may use."""

    owner: str  # shares the guard fairly and keeps its memory of prompts apart; never a credential itself
    limits: KeyLimits
    name: str = ""  # of the key; empty where there are no keys of ours

    def forwarded(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers that may go on from here: a key of ours is no business of the upstream."""
        if not self.name:
            return headers
        return {name: text for name, text in headers.items() if name.lower() not in CREDENTIALS}


class Callers:
    """Tells callers by their credential, and keeps how much each has used."""

    def __init__(self, settings: AuthSettings, usage_of: UsageOf | None = None) -> None:
        """`usage_of` a key by its name: what it has used is counted there."""
        self._usage_of = usage_of or (lambda _: OwnUsage())
        self._limits: dict[str, KeyLimits] = {}  # by the name of the key
        self._callers: dict[str, Caller] = {}  # by its hash
        self._unlimited = KeyLimits()
        self.adopt(settings)

    def adopt(self, settings: AuthSettings) -> None:
        """Know these keys from now on, and no others. What a name has used stays used, under a new key too."""
        known = self._limits
        self._limits = {key.name: known.get(key.name) or KeyLimits(self._usage_of(key.name)) for key in settings.keys}
        for key in settings.keys:
            self._limits[key.name].adopt(key.max_streams, key.requests_per_minute, key.tokens_per_minute)
        self._callers = {key.sha256: Caller(key.name, self._limits[key.name], key.name) for key in settings.keys}

    def identify(self, headers: Iterable[tuple[str, str]]) -> Caller:
        """Raises ApiError."""
        given = [(name.lower(), text) for name, text in headers if name.lower() in CREDENTIALS]
        if not self._callers:
            return Caller(owner_of(dict(given)), self._unlimited)
        credentials = {_credential(name, text) for name, text in given}
        if len(credentials) > 1:
            raise ApiError(400, "Send one API key, not several.", code="several_credentials")
        digest = digest_of(next(iter(credentials), ""))
        # All of them are compared, and each in full: how long it takes tells nothing of how near a guess was.
        found = [caller for known, caller in self._callers.items() if hmac.compare_digest(known, digest)]
        if not found:
            raise ApiError(
                401,
                "The API key is missing or not valid.",
                "authentication_error",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return found[0]


def owner_of(headers: Mapping[str, str]) -> str:
    """Who pays, where the key is the upstream's: a hash of the credential, or nobody in particular."""
    credential = next((headers[name] for name in CREDENTIALS if name in headers), "")
    return digest_of(credential) if credential else ""


def new_key() -> str:
    """A key that nobody can guess."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest_of(key: str) -> str:
    """SHA-256 in hexadecimal, of what aiohttp has decoded from a header."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def announce(name: str) -> str:
    """A new key, which is shown this once, and the table that lets it in."""
    key = new_key()
    return (
        f"The key, to be given to its user. It is not kept anywhere:\n\n{key}\n\n"
        f'For weir.toml:\n\n[[auth.keys]]\nname = "{name}"\nsha256 = "{digest_of(key)}"\n\n'
        f"Or as a variable: WEIR_AUTH__KEYS={name}:{digest_of(key)}"
    )


def _credential(name: str, text: str) -> str:
    """A header's credential; what is no bearer token of the `authorization` header matches no key."""
    if name != "authorization":
        return text
    scheme, _, token = text.partition(" ")
    return token if scheme.lower() == "bearer" else ""
