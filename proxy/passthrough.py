"""Routes that nobody can judge, in families: each is a fixed list of methods and paths, and is served where the
settings allow it. There are no wildcards: a path that is not here leads nowhere.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# An id as providers make them. It has no dot and no slash, so that it cannot lead to another path.
ID = "[A-Za-z0-9_-]{1,128}"

# What a family's routes are, a path a line behind its methods; `{}` is an id.
FAMILIES: Mapping[str, str] = {
    "embeddings": """
        POST /v1/embeddings
    """,
    "files": """
        GET POST /v1/files
        GET DELETE /v1/files/{}
        GET /v1/files/{}/content
    """,
    "uploads": """
        POST /v1/uploads
        POST /v1/uploads/{}/parts
        POST /v1/uploads/{}/complete
        POST /v1/uploads/{}/cancel
    """,
    "audio": """
        POST /v1/audio/speech
        POST /v1/audio/transcriptions
        POST /v1/audio/translations
    """,
    "images": """
        POST /v1/images/generations
        POST /v1/images/edits
        POST /v1/images/variations
    """,
    "batches": """
        GET POST /v1/batches
        GET /v1/batches/{}
        POST /v1/batches/{}/cancel
    """,
    "vector-stores": """
        GET POST /v1/vector_stores
        GET POST DELETE /v1/vector_stores/{}
        POST /v1/vector_stores/{}/search
        GET POST /v1/vector_stores/{}/files
        GET POST DELETE /v1/vector_stores/{}/files/{}
        GET /v1/vector_stores/{}/files/{}/content
        POST /v1/vector_stores/{}/file_batches
        GET /v1/vector_stores/{}/file_batches/{}
        POST /v1/vector_stores/{}/file_batches/{}/cancel
        GET /v1/vector_stores/{}/file_batches/{}/files
    """,
    "stored-completions": """
        GET /v1/chat/completions
        GET POST DELETE /v1/chat/completions/{}
        GET /v1/chat/completions/{}/messages
    """,
    "moderations-upstream": """
        POST /v1/moderations
    """,
    "message-batches": """
        GET POST /v1/messages/batches
        GET DELETE /v1/messages/batches/{}
        GET /v1/messages/batches/{}/results
        POST /v1/messages/batches/{}/cancel
    """,
    "count-tokens": """
        POST /v1/messages/count_tokens
    """,
}
# Families of Anthropic's API, which wants a key of ours elsewhere.
KEY_HEADERS: Mapping[str, str] = {"message-batches": "x-api-key", "count-tokens": "x-api-key"}


@dataclass(frozen=True, slots=True)
class Route:
    family: str
    method: str
    path: str  # with {0}, {1} for ids

    @property
    def key_header(self) -> str | None:
        """Where a key of ours goes; None for where the upstream's dialect has it."""
        return KEY_HEADERS.get(self.family)

    @property
    def pattern(self) -> str:
        """As the router takes it: {id0:...}."""
        return re.sub(r"\{(\d)\}", rf"{{id\1:{ID}}}", self.path)

    def matches(self, method: str, path: str) -> bool:
        return method == self.method and re.fullmatch(re.sub(r"\{\d\}", ID, self.path), path) is not None


def _routes() -> Iterator[Route]:
    for family, lines in FAMILIES.items():
        for line in lines.strip().splitlines():
            *methods, path = line.split()
            numbered = path.replace("{}", "{0}", 1).replace("{}", "{1}")
            yield from (Route(family, method, numbered) for method in methods)


ROUTES: tuple[Route, ...] = tuple(_routes())


def refusal(method: str, path: str) -> str | None:
    """What a client is told of a route that could be allowed and is not; None for all others."""
    found = next((route.family for route in ROUTES if route.matches(method, path)), None)
    if found is None:
        return None
    return f'What passes here cannot be judged. The server allows it with [passthrough] allow = ["{found}"].'
