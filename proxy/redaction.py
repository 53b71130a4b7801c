"""Keys and credentials out of a text that is to be kept. What goes is starred out, so that every offset still holds."""

import re
from collections.abc import Sequence

STAR = "*"
# Shorter than any real key; starring it out would hit words.
MIN_SECRET_CHARACTERS = 6
# What credentials of the usual services look like, and what is named one. The last group is what goes.
PATTERNS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?i)\b(?:bearer|basic)\s+([\w.~+/=-]{8,4096})",
        r"\b((?:sk|pk|rk|weir|xai|gsk|hf|r8|pplx|tgp|nvapi|glpat|npm|pypi)[-_][\w-]{16,512})",
        r"\b(gh[pousr]_\w{16,512}|github_pat_\w{16,512}|xox[a-z]-[\w-]{10,512})",
        r"\b((?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,64})",
        r"\b(eyJ[\w-]{8,4096}\.[\w-]{8,4096}\.[\w-]{0,4096})",
        r"://[^\s/:@]{0,256}:([^\s/@]{1,256})@",
        r"(?i)\b(?:api[_-]?key|secret|token|password|passwd|authorization|x-api-key)"
        r"[\"'\\]{0,4}\s{0,4}[:=]\s{0,4}[\"'\\]{0,4}([^\s\"'\\,;]{6,4096})",
        r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----([\s\S]{0,16384}?)-----END",
    )
)


class Redactor:
    def __init__(self, secrets: Sequence[str] = ()) -> None:
        """`secrets` go wherever they are, whatever they look like."""
        self._secrets = [one for one in secrets if len(one) >= MIN_SECRET_CHARACTERS]

    def redact(self, text: str) -> str:
        """As long as it was."""
        for secret in self._secrets:
            text = text.replace(secret, STAR * len(secret))
        for pattern in PATTERNS:
            text = pattern.sub(_starred, text)
        return text

    def also(self, secrets: Sequence[str]) -> "Redactor":
        return Redactor([*dict.fromkeys([*self._secrets, *secrets])])


def _starred(found: re.Match[str]) -> str:
    whole, start = found[0], found.start()
    return whole[: found.start(1) - start] + STAR * len(found[1]) + whole[found.end(1) - start :]
