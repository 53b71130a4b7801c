"""Records in PostgreSQL: several instances at once, and a server that is locked, full, silent, killed and back."""

import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.store import writer
from proxy.store.base import StoreError, StoreRefused, StoreUnusable
from proxy.store.filters import Filter
from proxy.store.row import row_of
from proxy.store.schema import VERSION
from proxy.store.writer import RecordWriter
from tests.postgres import Cluster, cluster, execute, postgres, psycopg, url_of_schema
from tests.sockets import free_port
from tests.store.records import START, cut, ids, record

PostgresPlace, PostgresStore = postgres.PostgresPlace, postgres.PostgresStore


@pytest.fixture
def url() -> str:
    return url_of_schema()


def at_once(count: int, run: Callable[[int], Any]) -> None:
    """In as many threads, all of which begin together; the first failure is raised."""
    barrier, failures = threading.Barrier(count), list[BaseException]()

    def one(number: int) -> None:
        try:
            barrier.wait(30)
            run(number)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def kept(url: str) -> list[int]:
    store = PostgresStore(url, is_reader=True)
    try:
        return ids(store.find(Filter(), newest_first=False))
    finally:
        store.close()


def writing(url: str, **more: Any) -> RecordWriter:
    found = RecordWriter(PostgresPlace(url), keep_days=36_500, max_bytes=1 << 40, **more)
    found.start()
    return found


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(writer, "LAST_RETRY_SECONDS", 0.1)


def test_instances_that_start_at_once_make_the_tables_once(url: str) -> None:
    def start(number: int) -> None:
        store = PostgresStore(url)
        store.write([row_of(record(number))])
        store.close()

    at_once(6, start)
    assert kept(url) == list(range(6))
    assert execute(url, "SELECT version FROM weir_records_version") == [(VERSION,)]


def test_two_writers_write_at_once_and_one_at_a_time_prunes(url: str) -> None:
    writers = [writing(url), writing(url)]

    def put(one: int) -> None:
        for number in range(1500):
            writers[one].put(record(2 * number + one))

    at_once(2, put)
    for one in writers:
        until(lambda one=one: one.written == 1500)  # type: ignore[misc]
        one.close()
    assert kept(url) == list(range(3000))

    first, second = PostgresStore(url), PostgresStore(url)
    with first._transaction():
        first._run(f"SELECT pg_advisory_xact_lock{postgres.LOCKED.format(postgres.PRUNE_LOCK)}")
        assert second.prune(START + 1000, 1 << 40) == 0
    gone: list[int] = []

    def prune(number: int) -> None:
        store = (first, second)[number]
        while deleted := store.prune(START + 1000, 1 << 20):
            gone.append(deleted)

    at_once(2, prune)
    assert (1 << 20) - 5000 < first.used_bytes() <= 1 << 20
    left = kept(url)
    assert left == list(range(3000 - len(left), 3000))
    assert sum(gone) == 3000 - len(left)
    first.close()
    second.close()


def test_much_that_is_old_goes_in_parts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "PRUNE_ROWS", 40)
    store = PostgresStore(url)
    store.write([row_of(record(number)) for number in range(200)])
    assert [store.prune(START + 100, 1 << 40) for _ in range(4)] == [40, 40, 20, 0]
    each = store.used_bytes() // 100
    assert [store.prune(0.0, 10 * each) for _ in range(4)] == [40, 40, 10, 0]
    store.close()


def test_what_is_summed_up_is_about_what_the_disk_holds(url: str) -> None:
    store = PostgresStore(url)
    for start in range(0, 5000, 1000):
        store.write([row_of(cut(number)) for number in range(start, start + 1000)])
    [(size,)] = execute(url, "SELECT pg_total_relation_size('records')")
    assert 0.7 < store.used_bytes() / size < 1.3
    store.close()


def test_a_table_of_somebody_else_is_left_alone(url: str) -> None:
    execute(url, "CREATE TABLE records (name TEXT)")
    with pytest.raises(StoreUnusable, match="not Weir's"):
        PostgresStore(url)
    assert execute(url, "SELECT to_regclass('weir_records_version')") == [(None,)]


def test_a_database_that_cannot_hold_every_text_is_refused() -> None:
    url = cluster().url
    execute(url, "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        with pytest.raises(StoreUnusable, match="encoding LATIN1"):
            PostgresStore(url.replace("/postgres?", "/latin?"))
    finally:
        execute(url, "DROP DATABASE latin WITH (FORCE)")


def test_another_schema_in_the_same_database_is_another_store(url: str) -> None:
    other = url_of_schema()
    for one, number in ((url, 1), (other, 2)):
        store = PostgresStore(one)
        store.write([row_of(record(number))])
        store.close()
    assert (kept(url), kept(other)) == ([1], [2])


def test_a_row_that_is_refused_costs_no_other(url: str, caplog: pytest.LogCaptureFixture) -> None:
    store = PostgresStore(url)
    execute(url, "ALTER TABLE records ADD CHECK (model <> 'bad')")
    with pytest.raises(StoreRefused):
        store.write([row_of(record(1)), row_of(record(2, model="bad"))])
    assert kept(url) == []
    store.close()
    one = writing(url)
    for number in range(3):
        one.put(record(number, model="bad" if number == 1 else "good"))
    until(lambda: one.written + one.dropped == 3)
    one.close()
    assert kept(url) == [0, 2]
    assert "cannot be kept" in caplog.text


@pytest.mark.usefixtures("_hurried")
def test_a_lock_of_another_is_an_error_that_passes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PostgresStore(url)
    one = writing(url)
    with monkeypatch.context() as hurried, psycopg.connect(url) as other:
        hurried.setattr(postgres, "STATEMENT_SECONDS", 0.3)  # no longer than it must fail
        other.execute("LOCK TABLE records IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreError, match="timeout"):
            store.write([row_of(record(1))])
        one.put(record(2))
        until(lambda: one._is_failing)
        assert one.written == 0
    until(lambda: one.written == 1)
    store.write([row_of(record(1))])
    assert kept(url) == [1, 2]
    one.close()
    store.close()


@pytest.mark.usefixtures("_hurried")
def test_a_server_that_is_full_costs_what_does_not_fit_into_the_queue(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = writing(url, max_queued=50)
    one.put(record(0))
    until(lambda: one.written == 1)
    full = "BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END"
    execute(
        url,
        f"CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS $$ {full} $$",
        "CREATE TRIGGER is_full BEFORE INSERT ON records EXECUTE FUNCTION is_full()",
    )
    one.put(record(1))
    until(lambda: one._is_failing)
    for number in range(2, 100):
        one.put(record(number))
    assert one.dropped > 40
    execute(url, "DROP TRIGGER is_full ON records")
    until(lambda: one.written + one.dropped == 100)
    one.close()
    assert len(kept(url)) == one.written
    assert "cannot be written: No space left on device" in caplog.text
    assert f"are written again; {one.dropped} were lost in all" in caplog.text


def ends(how: str, server: Cluster) -> None:
    server.kill() if how == "kill -9" else server.stop()


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize("how", ["kill -9", "restart"])
def test_a_server_that_goes_and_comes_back_loses_nothing_that_fits(how: str, caplog: pytest.LogCaptureFixture) -> None:
    server = cluster()
    url = url_of_schema(server.url)
    one = writing(url)
    numbers = iter(range(100_000))
    for _ in range(200):
        one.put(record(next(numbers)))
    until(lambda: one.written > 0)
    try:
        ends(how, server)
        begin = time.perf_counter()
        for _ in range(300):
            one.put(record(next(numbers)))
        assert time.perf_counter() - begin < 5
        until(lambda: one._is_failing)
    finally:
        server.start()
    for _ in range(10):
        one.put(record(next(numbers)))
    until(lambda: one.written == 510)
    one.close()
    assert one.dropped == 0
    assert kept(url) == list(range(510))
    assert "are written again; 0 were lost in all" in caplog.text


@pytest.mark.usefixtures("_hurried")
def test_a_server_that_falls_silent_is_left_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    server = cluster()
    url = url_of_schema(server.url)
    store = PostgresStore(url)
    one = writing(url)
    one.put(record(0))
    until(lambda: one.written == 1)
    server.signal(signal.SIGSTOP)
    try:
        with monkeypatch.context() as hurried:  # no longer than it must fail
            hurried.setattr(postgres, "STATEMENT_SECONDS", 0.5)
            hurried.setattr(postgres, "SILENCE_SECONDS", 1.0)
            hurried.setitem(postgres.DEFAULTS, "connect_timeout", "2")
            one.put(record(1))
            with pytest.raises(StoreError):
                store.write([row_of(record(2))])
            with pytest.raises(StoreError):
                PostgresStore(url)
            until(lambda: one._is_failing)
    finally:
        server.signal(signal.SIGCONT)
    until(lambda: one.written == 2)
    one.close()
    store.close()
    assert kept(url)[:2] == [0, 1]


# Python's standard library reads certificates and makes none.
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_tls_and_a_password_are_as_the_url_says(tmp_path: Path) -> None:
    server, port = cluster(), free_port()
    execute(server.url, "CREATE ROLE app LOGIN PASSWORD 'hunter2hunter2'", "CREATE SCHEMA AUTHORIZATION app")
    server.make_certificate("localhost")
    server.write("tls_hba.conf", "local all all trust\nhostssl all app 127.0.0.1/32 scram-sha-256\n")
    authority = tmp_path / "authority.pem"
    authority.write_bytes((server.folder / "server.crt").read_bytes())
    base = f"postgresql://app:hunter2hunter2@localhost:{port}/postgres?hostaddr=127.0.0.1&sslrootcert={authority}"
    try:
        server.stop()
        server.start(
            f"port={port}",
            "listen_addresses=127.0.0.1",
            "ssl=on",
            f"ssl_cert_file={server.folder}/server.crt",
            f"ssl_key_file={server.folder}/server.key",
            f"hba_file={server.folder}/tls_hba.conf",
        )
        store = PostgresStore(f"{base}&sslmode=verify-full")
        store.write([row_of(record(1))])
        assert store._ask("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]
        store.close()
        for wrong, reason in (
            (f"{base}&sslmode=disable", "no pg_hba.conf entry"),
            (base.replace("@localhost", "@other.example") + "&sslmode=verify-full", "does not match"),
            (base.replace("hunter2", "hunter3") + "&sslmode=require", "password authentication failed"),
        ):
            with pytest.raises(StoreError, match=reason) as caught:
                PostgresStore(wrong)
            assert "hunter" not in str(caught.value)
    finally:
        server.stop()
        server.start()


def test_it_reads_while_another_writes(url: str) -> None:
    store = PostgresStore(url)
    store.write([row_of(record(1))])
    with store._transaction():
        store._run(
            "INSERT INTO records SELECT 'weir-2', started, seconds, endpoint, key, model, upstream, policy, "
            "outcome, status, scanned, category, body FROM records"
        )
        assert kept(url) == [1]
    store.close()


def test_no_failure_tells_a_password(caplog: pytest.LogCaptureFixture) -> None:
    for url in (
        "postgresql://u:hunter2hunter2@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=u&password=hunter2hunter2",
        "postgresql://u:hunter2hunter2@127.0.0.1:x/db",
        "postgresql://u:hunter2hunter2%zz@127.0.0.1/db",
        "postgresql://u:hunter2hunter2@127.0.0.1/db?sslmode=hunter2hunter2",
        "postgresql://u:hunter2hunter2@[::1/db",
        "postgresql://u:hunter2hunter2@127.0.0.1/db?nothing=1",
    ):
        with pytest.raises(StoreError) as caught:
            PostgresStore(url)
        assert "hunter2" not in str(caught.value), url
        assert "\n" not in str(caught.value)
        one = writing(url)
        one.put(record(1))
        until(lambda one=one: one._is_failing)  # type: ignore[misc]
        one.close(0.1)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://u:p@db.example:6432/weir?sslmode=verify-full", "db.example:6432/weir"),
        ("postgresql://u:p@a:1,b:2/weir", "a,b:1,2/weir"),
        ("postgresql:///weir?host=/run/pg", "/run/pg/weir"),
        ("postgresql://?service=records", "records/"),
    ],
)
def test_a_place_is_named_without_its_user_and_password(url: str, name: str) -> None:
    assert PostgresPlace(url).name() == name


def test_a_server_is_not_set_aside(url: str) -> None:
    with pytest.raises(OSError, match="mends itself"):
        PostgresPlace(url).set_aside()
