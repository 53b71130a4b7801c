"""Where an upstream perhaps really is: what answers beside a base URL at which nothing does."""

import asyncio
from contextlib import closing, suppress
from urllib.parse import urlsplit

from proxy.errors import Fault
from proxy.model_handlers import ask_for_models
from proxy.model_list import read_models
from proxy.settings import UpstreamSettings
from proxy.upstream import Upstream

# For each place that is tried: a person waits.
SECONDS = 3.0
MAX_MODELS_BYTES = 8 << 20
OTHER_SCHEME = {"http": "https", "https": "http"}
# What people paste of an API's page: the path of a call, where its base is meant.
CALLS = ("/chat/completions", "/completions", "/responses", "/messages", "/models")


def spellings(url: str) -> list[str]:
    """Other base URLs that may have been meant: without the path of a call, with /v1, with the other scheme."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    base = next((path.removesuffix(call) for call in CALLS if path.endswith(call)), path)
    places = [base, f"{base}/v1", "/v1"] if not base.endswith("/v1") else [base, "/v1"]
    # A bare host is read as one with /v1.
    paths = [place or "/v1" for place in places]
    schemes = (parts.scheme, OTHER_SCHEME[parts.scheme])
    meant = [parts._replace(scheme=scheme, path=place).geturl() for scheme in schemes for place in paths]
    given = parts._replace(path=path or "/v1").geturl()
    return [one for one in dict.fromkeys(meant) if one != given]


async def answering(upstream: UpstreamSettings) -> str | None:
    """The first of the spellings at which an API of this dialect answers. It is shown no key."""
    for url in spellings(str(upstream.base_url)):
        if await _answers(upstream.model_copy(update={"base_url": url, "api_key": None})):
            return url
    return None


async def _answers(upstream: UpstreamSettings) -> bool:
    # ValueError: a body that is no list of models
    with suppress(Fault, TimeoutError, ValueError), closing(Upstream(upstream)) as asked:
        async with asyncio.timeout(SECONDS):
            response = await ask_for_models(asked, {})
            if response.status in (401, 403):
                return True
            body = await response.read_all(MAX_MODELS_BYTES, SECONDS)
            return response.status == 200 and bool(read_models(body, upstream.dialect))
    return False
