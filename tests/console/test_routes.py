"""The console over a real socket: who gets what, and what becomes of odd questions."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxy.admin import ADMIN, OneServer, administered, for_operators
from proxy.admin_settings import AdminSettings
from proxy.app import build_app
from proxy.config import load_settings
from proxy.console.page import FILES, POLICY, body_of
from proxy.console.playground import MAX_BODY_BYTES
from proxy.console.routes import MAX_JUDGED, MAX_SEARCHES, Console
from proxy.handlers import CURRENT
from proxy.records import ChannelRecord, RequestOutcome
from proxy.store.sqlite import SqliteFile
from proxy.store.writer import RecordWriter
from tests.fakes import UNSAFE, ScriptedGuard, listening, words
from tests.sockets import PATIENCE_SECONDS, Reply, ask, connected, http_request
from tests.test_metrics import record

KEY = "operators-key-0123456789"
DATA = ("/console/about", "/console/live", "/console/health", "/console/records", "/console/records/weir-1")
CONVERSATION = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "one two bad three"}]}


@asynccontextmanager
async def console(
    guard: ScriptedGuard | None = None, *, key: str | None = None, **overrides: Any
) -> AsyncIterator[tuple[str, web.Application]]:
    values = {"upstream.base_url": "http://127.0.0.1:1/v1?code=secret"}
    values |= {name.replace("__", "."): value for name, value in overrides.items()}
    app = build_app(load_settings(overrides=values, environ={}), guard or ScriptedGuard())
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        async with administered(AdminSettings.model_validate({"port": 0, "key": key}), OneServer(app)) as port:
            yield f"http://127.0.0.1:{port}", app
    finally:
        await runner.cleanup()


async def get(url: str, path: str, **headers: str) -> Reply:
    given = {"Host": "127.0.0.1", "Content-Type": "", **headers}
    return await ask(url, http_request(b"", method="GET", path=path, headers=given))


async def post(url: str, body: Any, **headers: str) -> Reply:
    return await ask(url, http_request(body, path="/console/judge", headers={"Host": "127.0.0.1", **headers}))


async def test_the_page_is_served_with_its_policy() -> None:
    async with console() as (url, _):
        for path, (_, kind) in FILES.items():
            reply = await get(url, path)
            assert (reply.status, reply.body) == (200, body_of(path))
            assert reply.headers["content-type"] == kind
            assert reply.headers["content-security-policy"] == POLICY
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cache-control"] == "no-store"
        for path in ("/index.html", "/page/index.html", "/../admin.py", "/console", "/console/", "/console.js/"):
            reply = await get(url, path)
            assert reply.status == 404
            assert reply.headers["content-security-policy"] == POLICY


async def test_with_a_key_the_files_are_public_and_the_data_is_not() -> None:
    async with console(key=KEY) as (url, _):
        for path in FILES:
            assert (await get(url, path, Host="any.name")).status == 200
        for path in DATA:
            assert (await get(url, path)).status == 401
        assert (await post(url, CONVERSATION)).status == 401
        opened = {"Authorization": f"Bearer {KEY}"}
        assert (await get(url, "/console/live", **opened)).status == 200
        assert (await post(url, CONVERSATION, **opened)).status == 200
        reply = await ask(url, http_request(b"", path="/", headers={"Host": "127.0.0.1", "Content-Type": ""}))
        assert reply.status == 401  # the file is for reading only


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.test"])
async def test_another_page_of_the_browser_gets_nothing(origin: str) -> None:
    async with console() as (url, _):
        for reply in (await get(url, "/console/live", Origin=origin), await post(url, CONVERSATION, Origin=origin)):
            assert reply.status == 403
            assert "access-control-allow-origin" not in reply.headers
        assert (await get(url, "/", Host="evil.test")).status == 403
        assert (await post(url, CONVERSATION, Origin="http://127.0.0.1")).status == 200


async def test_what_is_told_about_the_server_holds_no_secret() -> None:
    async with console() as (url, _):
        reply = await get(url, "/console/about")
        assert reply.json["guard"]["model"] == "scripted"
        assert [one["name"] for one in reply.json["policies"]] == ["default"]
        assert reply.json["upstreams"][0]["host"] == "127.0.0.1:1"
        assert b"secret" not in reply.body
        assert (await get(url, "/console/health")).json["ready"] is True


async def test_a_conversation_is_judged() -> None:
    async with console(ScriptedGuard(words("bad"))) as (url, _):
        reply = await post(url, CONVERSATION)
        assert reply.json["texts"][0]["flagged_at"] == len("one two")
        assert reply.json["client"]["outcome"] == "cut"


async def test_bad_questions_have_clear_answers() -> None:
    guard = ScriptedGuard()
    async with console(guard) as (url, _):
        assert (await post(url, b"{")).status == 400
        assert (await post(url, b"[]")).status == 400
        assert (await post(url, {"messages": []})).status == 400
        assert (await post(url, CONVERSATION, **{"Content-Type": "text/plain"})).status == 415
        too_long = json.dumps({"messages": [{"role": "user", "content": "x" * MAX_BODY_BYTES}]}).encode()
        assert (await post(url, too_long)).status == 413
        huge = http_request(b"", path="/console/judge", headers={"Host": "127.0.0.1", "Content-Length": str(1 << 40)})
        assert (await ask(url, huge)).status == 413
        assert (await get(url, "/console/judge")).status == 405
        assert (await get(url, "/console/live?x=1")).status == 200
        assert guard.slots == guard.tokens == 0


async def test_a_conversation_that_does_not_fit_the_guard_is_told_so() -> None:
    async with console(ScriptedGuard(window=20)) as (url, _):
        reply = await post(url, {"messages": [{"role": "user", "content": "word " * 100}]})
        assert reply.status == 400
        assert "word word" not in reply.body.decode()


async def test_a_guard_that_fails_is_a_503() -> None:
    async with console(ScriptedGuard(fails_after=-1)) as (url, _):
        assert (await post(url, CONVERSATION)).status == 503


async def test_a_guard_that_hangs_is_given_up() -> None:
    guard = ScriptedGuard(delay=3600.0)
    async with console(guard) as (_, public):
        app = web.Application(middlewares=[for_operators])
        app[ADMIN] = AdminSettings()
        app.router.add_routes(Console(OneServer(public), judge_seconds=0.1).routes())
        async with listening(app) as url:
            reply = await post(url, CONVERSATION)
        assert (reply.status, reply.error["code"]) == (503, "guard_unavailable")
        assert guard.slots == 0


async def test_few_are_judged_at_once_and_who_leaves_frees_the_guard() -> None:
    guard = ScriptedGuard(delay=3600.0)
    async with console(guard) as (url, _):
        sent = http_request(CONVERSATION, path="/console/judge", headers={"Host": "127.0.0.1"})
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with asyncio.TaskGroup() as group:
                leaving = asyncio.Event()

                async def hold() -> None:
                    async with connected(url) as client:
                        await client.send(sent)
                        await leaving.wait()

                for _ in range(MAX_JUDGED):
                    group.create_task(hold())
                while guard.slots < 2 * MAX_JUDGED:  # noqa: ASYNC110 (a prompt and an answer each)
                    await asyncio.sleep(0.01)
                reply = await post(url, CONVERSATION)
                assert (reply.status, reply.error["code"]) == (429, "overloaded")
                leaving.set()
            await guard.freed.wait()
        guard.delay = 0.0
        assert (await post(url, CONVERSATION)).status == 200


async def test_without_a_store_records_say_so() -> None:
    async with console() as (url, _):
        assert (await get(url, "/console/about")).json["keeps_records"] is False
        for path in ("/console/records", "/console/records/weir-1"):
            reply = await get(url, path)
            assert (reply.status, reply.error["code"]) == (404, "no_records")


async def test_records_are_found_and_opened(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    async with console(records__file=str(file)) as (url, app):
        writer = app[CURRENT].now.records
        assert writer is not None
        for number, outcome in enumerate([RequestOutcome.CUT, RequestOutcome.COMPLETE]):
            one = record(outcome=outcome, model="gpt-5", channels=[ChannelRecord(0, "content", 9, 9, 9, 3)])
            one.request_id = f"weir-{number}"
            writer.put(one)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while writer.written < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len((await get(url, "/console/records")).json["records"]) == 2
        [cut] = (await get(url, "/console/records?outcome=cut&model=GPT-*")).json["records"]
        assert cut["request_id"] == "weir-0"
        opened = (await get(url, "/console/records/weir-0")).json
        assert opened["channels"][0]["tokens"] == 3
        assert (await get(url, "/console/records/weir-9")).status == 404
        assert (await get(url, "/console/records?outcome=nice")).status == 400
        assert (await get(url, "/console/records/..%2f..%2fetc")).status == 404


async def test_a_store_that_cannot_be_read_is_a_503_without_its_path(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    async with console(records__file=str(file)) as (url, _):
        file.write_bytes(b"this is no database, whatever its name says" * 100)
        reply = await get(url, "/console/records")
        assert (reply.status, reply.error["code"]) == (503, "records_unreadable")
        assert str(tmp_path) not in reply.body.decode()


async def test_live_numbers_follow_what_is_served() -> None:
    async with console(ScriptedGuard(prompt_level=UNSAFE)) as (url, _):
        found = (await get(url, "/console/live")).json
        assert found["streams"] == 0
        assert found["draining"] is False


async def test_few_searches_run_at_once_and_no_slow_disk_holds_up_the_loop(tmp_path: Path) -> None:
    file = tmp_path / "records.db"
    os.mkfifo(file)  # opening it waits for somebody who writes
    async with console() as (url, app):
        writer = RecordWriter(SqliteFile(tmp_path / "other.db"), keep_days=1, max_bytes=1 << 20)
        current = app[CURRENT]
        records = current.now.settings.records.model_copy(update={"file": file})
        settings = current.now.settings.model_copy(update={"records": records})
        current.now = replace(current.now, settings=settings, records=writer)
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            asked = [group.create_task(get(url, "/console/records")) for _ in range(MAX_SEARCHES + 1)]
            [first], waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert (first.result().status, first.result().error["code"]) == (429, "overloaded")
            assert (await get(url, "/console/live")).status == 200
            assert not any(one.done() for one in waiting)
            end = os.open(file, os.O_RDWR)
        os.close(end)
        assert {one.result().status for one in waiting} == {503}
