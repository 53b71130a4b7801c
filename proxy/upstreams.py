"""All upstreams: which one a model goes to, and connections for each, so that none waits behind another."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from fnmatch import fnmatchcase

from proxy.errors import ApiError
from proxy.settings import Settings, UpstreamSettings
from proxy.upstream import Upstream


class Upstreams:
    """The upstreams in the order of the settings."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = tuple(upstreams)

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._upstreams)

    def of_model(self, model: str) -> Upstream:
        """The first whose patterns match, else the one without patterns. Raises ApiError (404)."""
        found = self.find(model)
        if found is None:
            raise ApiError(404, "No upstream of this server serves the model.", param="model", code="model_not_found")
        return found

    def find(self, model: str) -> Upstream | None:
        return next((one for one in self._upstreams if serves(one.settings, model)), self._default())

    def named(self, name: str | None) -> Upstream:
        """The one of that name; without a name, the default, or the first where none is. Raises ValueError."""
        if name is None:
            return self.of_stored()
        found = next((one for one in self._upstreams if one.name == name), None)
        if found is None:
            raise ValueError("there is no upstream of that name")
        return found

    def of_stored(self) -> Upstream:
        """The one that is asked for what was kept: the default, or the first where none is."""
        return self._default() or self._upstreams[0]

    def _default(self) -> Upstream | None:
        return next((one for one in self._upstreams if one.settings.models is None), None)


def serves(settings: UpstreamSettings, model: str) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in settings.models or ())


@asynccontextmanager
async def open_upstreams(settings: Settings) -> AsyncIterator[Upstreams]:
    """Each with its own connections and limits."""
    several = settings.upstreams
    with ExitStack() as stack:
        opened = []
        for one in several:
            upstream = Upstream(one, takes_client_key=takes_client_key(one, is_alone=len(several) == 1))
            stack.callback(upstream.close)
            opened.append(upstream)
        yield Upstreams(opened)


def takes_client_key(settings: UpstreamSettings, *, is_alone: bool) -> bool:
    """A client means its key for one provider. Which of several that is only the operator knows."""
    return settings.api_key is None and (is_alone if settings.client_key is None else settings.client_key)
