"""What requests are served with, as it is now. Each takes what it finds, and goes by that to its end."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from proxy.exchange import Service
from proxy.guard.protocol import Guard
from proxy.loading import Loading
from proxy.policies import Policies
from proxy.settings import Settings
from proxy.store.places import secrets_of
from proxy.upstreams import make_upstreams


class Current:
    """One application's. It changes when the guard arrives, and when settings are adopted."""

    def __init__(self, service: Service) -> None:
        self.now = service
        self._followers: list[Callable[[Settings], None]] = []

    @property
    def is_loading(self) -> bool:
        return isinstance(self.now.guard, Loading)

    def arrive(self, guard: Guard) -> None:
        """The guard is there: from now on requests are served."""
        self.now = replace(self.now, guard=guard)

    def follow(self, adopt: Callable[[Settings], None]) -> None:
        """Have it told of settings that are adopted."""
        self._followers.append(adopt)

    @contextmanager
    def taken(self) -> Iterator[Service]:
        """By one request, from its beginning to its end."""
        service = self.now
        with service.upstreams.used():
            yield service

    def adopt(self, settings: Settings) -> None:
        """Go by these from now on. What only requests under way still use is closed as they end."""
        old = self.now
        upstreams = make_upstreams(settings, old.upstreams)
        self.now = replace(old, settings=settings, policies=Policies(settings), upstreams=upstreams)
        for follower in self._followers:
            follower(settings)
        if old.records is not None:
            old.records.hide(secrets_of(settings))
            old.records.retain(settings.records.keep_days, settings.records.max_bytes)
        logging.getLogger("weir").setLevel(settings.log.level.upper())
        old.upstreams.retire()
