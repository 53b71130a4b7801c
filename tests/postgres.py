"""A PostgreSQL server of the tests' own, made once for all of them, or the one that WEIR_POSTGRES_URL names.

Each test gets a schema of its own in it. Where there is neither a server nor the driver, the tests are skipped.
"""

import atexit
import importlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from functools import cache
from pathlib import Path
from typing import Any

import pytest

GIVEN = os.environ.get("TESTS_WEIR_POSTGRES_URL")
# `make postgres` asks for the tests: what they need is missing then, not left out.
IS_WANTED = os.environ.get("TESTS_WEIR_POSTGRES") == "1"
psycopg: Any = (
    importlib.import_module("psycopg")
    if IS_WANTED
    else pytest.importorskip("psycopg", reason='no PostgreSQL driver: pip install "weir-proxy[postgres]"')
)
postgres: Any = importlib.import_module("proxy.store.postgres")  # which needs the driver

# Where packages of the usual systems put the server's programs, the newest last.
FOLDERS = [
    *sorted(Path("/usr/lib/postgresql").glob("*/bin")),
    *(Path(name) for name in ("/usr/local/bin", "/usr/local/pgsql/bin", "/opt/homebrew/bin")),
]
# What a test writes has to survive the server, not the machine.
FAST = "fsync=off full_page_writes=off shared_buffers=16MB max_wal_size=256MB jit=off"
READY_SECONDS = 60.0


class Cluster:
    """A server in a folder of its own, which listens on a Unix socket there alone."""

    def __init__(self, settings: str = FAST) -> None:
        self.programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="weir-pg-", dir="/tmp"))  # the path of a socket has to be short
        # The server does not run as root.
        self._user = unprivileged() if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)
        flags = ["-U", "weir", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"]
        self._run("initdb", "-D", str(self.folder / "data"), *flags).check_returncode()

    @property
    def url(self) -> str:
        return f"postgresql://weir@/postgres?host={self.folder}"

    def write(self, name: str, text: str) -> None:
        """Into its folder."""
        file = self.folder / name
        file.write_text(text)
        if self._user is not None:
            shutil.chown(file, self._user)

    def make_certificate(self, name: str) -> None:
        """server.crt and server.key, its own authority."""
        flags = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        files = ["-keyout", str(self.folder / "server.key"), "-out", str(self.folder / "server.crt")]
        command = ["openssl", *flags, *files, "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        subprocess.run(command, user=self._user, check=True, capture_output=True, timeout=60)

    def start(self, *more: str) -> None:
        """`more`: settings as NAME=VALUE."""
        flags = [text for one in [*self._settings.split(), *more] for text in ("-c", one)]
        command = [self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder, "-h", "", *flags]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command], user=self._user, cwd=self.folder, stdout=log, stderr=log
            )
        end = time.monotonic() + READY_SECONDS
        port = next((one.removeprefix("port=") for one in more if one.startswith("port=")), "5432")
        while not self._answers(port):
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.05)

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _answers(self, port: str) -> bool:
        try:
            psycopg.connect(self.url, port=port, connect_timeout=5).close()
        except psycopg.Error:
            return False
        return True

    def signal(self, number: int) -> None:
        """To the server; all its processes are told where it cannot tell them itself."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        pids = [self._process.pid, *(int(text) for text in children.read_text().split())]
        for pid in pids:
            os.kill(pid, number)

    def kill(self) -> None:
        """As a crash or the lack of memory ends it: kill -9 of all its processes."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        assert self._process is not None
        self._process.wait(READY_SECONDS)

    def stop(self) -> None:
        """At once, as for a restart: who is connected is cut off."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self.wait()

    def remove(self) -> None:
        if self._process is not None and self.is_up:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(READY_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(self.programs / program), *arguments],
            user=self._user,
            cwd=self.folder,
            capture_output=True,
            timeout=120,
            check=False,
        )


def programs() -> Path:
    """The folder of the server's programs; without them the test is skipped."""
    found = [one for one in FOLDERS if (one / "initdb").exists() and (one / "postgres").exists()]
    if not found:
        assert not IS_WANTED, "PostgreSQL's server is not installed here"
        pytest.skip("no PostgreSQL: neither its server is installed nor WEIR_POSTGRES_URL set")
    return found[0]


def unprivileged() -> str:
    names = [one.pw_name for one in pwd.getpwall()]
    return next(name for name in ("postgres", "nobody") if name in names)


@cache
def cluster() -> Cluster:
    """One for all tests; whoever stops it starts it again."""
    found = Cluster()
    found.start()
    return found


def url_of_schema(url: str | None = None) -> str:
    """With a schema of its own, empty, in a server that tests do no harm, or in another one."""
    url = url or GIVEN or cluster().url
    name = f"weir_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """As another user of the database; the rows of the last statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []
