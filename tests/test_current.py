"""What requests find, and what changes while they run."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from proxy.config import load_settings
from proxy.current import Current
from proxy.exchange import Service
from proxy.loading import Loading
from proxy.policies import Policies
from proxy.settings import Settings
from proxy.store.sqlite import SqliteFile
from proxy.store.writer import RecordWriter
from proxy.upstream_pool import Pool
from proxy.upstreams import make_upstreams
from tests.fakes import ScriptedGuard


def settings_of(url: str, **more: object) -> Settings:
    return load_settings(overrides={"upstream.base_url": url, **more}, environ={})


@contextmanager
def current(settings: Settings) -> Iterator[Current]:
    found = Current(Service(settings, Policies(settings), Loading(), make_upstreams(settings)))
    yield found
    found.now.upstreams.retire()


def pool_of(service: Service) -> Pool:
    return service.upstreams.of_model("m").pool


async def test_a_guard_arrives_for_the_requests_that_come() -> None:
    with current(settings_of("http://a")) as found:
        guard = ScriptedGuard()
        with found.taken() as early:
            assert found.is_loading
            found.arrive(guard)
            assert not found.is_loading
            assert early.guard is not guard
        with found.taken() as late:
            assert late.guard is guard


async def test_a_request_keeps_what_it_found_and_the_last_one_closes_what_is_gone() -> None:
    with current(settings_of("http://a")) as found, ExitStack() as requests:
        heard: list[Settings] = []
        found.follow(heard.append)
        first = requests.enter_context(found.taken())
        with found.taken() as second:
            found.adopt(settings_of("http://b"))
            unused = pool_of(found.now)
            found.adopt(later := settings_of("http://c", **{"policy.name": "c"}))
            assert unused.is_closed
            assert second is first
            assert second.upstreams.of_model("m").settings.base_url == "http://a"
            with found.taken() as third:
                assert third.upstreams.of_model("m").settings.base_url == "http://c"
                assert third.policies.default.policy.name == "c"
        assert not pool_of(first).is_closed
        requests.close()
        assert pool_of(first).is_closed
        assert not pool_of(found.now).is_closed
        assert heard[-1] is later


async def test_an_upstream_that_stays_keeps_its_connections() -> None:
    with current(settings_of("http://a")) as found:
        before = pool_of(found.now)
        found.adopt(settings_of("http://a", **{"upstream.api_key": "sk-new", "upstream.idle_seconds": 3}))
        assert pool_of(found.now) is before
        assert not before.is_closed
        assert found.now.upstreams.of_model("m").own_key == "sk-new"
        found.adopt(settings_of("http://a", **{"upstream.max_connections": 7}))
        assert pool_of(found.now) is not before
        assert before.is_closed


def test_the_limits_of_records_change(tmp_path: Path) -> None:
    with current(settings_of("http://a")) as found:
        writer = RecordWriter(SqliteFile(tmp_path / "r.db"), keep_days=30, max_bytes=1 << 30)
        found.now = replace(found.now, records=writer)
        found.adopt(settings_of("http://a", **{"records.keep_days": 2, "records.max_bytes": 1 << 20}))
        assert (writer.keep_days, writer.max_bytes) == (2, 1 << 20)
