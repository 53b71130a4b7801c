"""All upstreams: which one a model goes to, and connections for each, so that none waits behind another."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from proxy.errors import ApiError
from proxy.settings import Settings, UpstreamSettings
from proxy.upstream import Upstream


class Upstreams:
    """The upstreams of one reading of the settings, in its order.

    Their connections close when they are retired and the last request that found them has ended.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = tuple(upstreams)
        self._users = 1  # whoever has made them, and the requests under way

    @contextmanager
    def used(self) -> Iterator[None]:
        """By one request, to its end."""
        self._users += 1
        try:
            yield
        finally:
            self.retire()

    def retire(self) -> None:
        """For the one who has made them: no request finds them any more."""
        self._users -= 1
        if not self._users:
            for one in self._upstreams:
                one.close()

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


def make_upstreams(settings: Settings, before: Iterable[Upstream] = ()) -> Upstreams:
    """Each with connections and limits of its own, which the caller retires; those of `before` are shared where they
    lead to the same place in the same way.
    """
    several = settings.upstreams
    known = {_way(one.settings): one.pool for one in before}

    def make(one: UpstreamSettings) -> Upstream:
        mine = takes_client_key(one, is_alone=len(several) == 1)
        pool = known.get(_way(one))
        return Upstream(one, takes_client_key=mine, pool=None if pool is None else pool.share())

    return Upstreams([make(one) for one in several])


def _way(settings: UpstreamSettings) -> tuple[object, ...]:
    """What connections depend on."""
    return settings.name, settings.base_url, settings.max_connections, settings.connect_seconds, settings.keep_seconds


def takes_client_key(settings: UpstreamSettings, *, is_alone: bool) -> bool:
    """A client means its key for one provider. Which of several that is only the operator knows."""
    return settings.api_key is None and (is_alone if settings.client_key is None else settings.client_key)
