"""Which upstream a model goes to, and that none can harm, or learn the key of, another."""

import asyncio
from pathlib import Path

import pytest

from proxy.config import ConfigError, load_settings
from proxy.errors import ApiError
from proxy.policy_settings import PolicySettings
from proxy.settings import Settings, UpstreamSettings
from proxy.upstreams import takes_client_key
from tests.doors import DOORS, Door
from tests.driver import WORDS, answer, body, read
from tests.fakes import ScriptedGuard, ScriptedUpstream, labels
from tests.servers import opened, recorded, weir_before
from tests.sockets import ask, http_request, timed

JSON = "application/json"
NOTICE = PolicySettings().notice
FILE = """\
[[upstream]]
name = "openai"
base_url = "{openai}"
client_key = true

[[upstream]]
name = "claude"
base_url = "{claude}"
models = ["claude-*", "house"]
api_key = "sk-claude-canary"

[[upstream]]
name = "local"
base_url = "{local}"
models = ["qwen?", "claude-local"]
first_byte_seconds = 0.5
max_connections = 1
"""


def replies(text: str = "hi", **fields: object) -> ScriptedUpstream:
    return ScriptedUpstream([body({"content": text})], content_type=JSON, **fields)  # type: ignore[arg-type]


def three(**others: ScriptedUpstream) -> dict[str, ScriptedUpstream]:
    return {name: replies(f"from {name}") for name in ("openai", "claude", "local")} | others


def settings_of(*models: tuple[str, ...] | None) -> Settings:
    tables = {
        str(number): UpstreamSettings(name=str(number), base_url="http://h", models=patterns)
        for number, patterns in enumerate(models)
    }
    return Settings(upstream_tables=tables)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o", "2"),
        ("a-1", "0"),
        ("a-", "0"),
        ("b", "1"),
        ("ab", "0"),  # the first that matches
        ("A-1", "2"),  # models are written as they are
        ("a", "2"),
        ("xa-1", "2"),
        ("*", "2"),
        ("b\n", "2"),
    ],
)
async def test_the_first_pattern_that_matches_picks_the_upstream(model: str, expected: str) -> None:
    async with opened(settings_of(("a-*", "?b"), ("b", "ab"), None)) as upstreams:
        assert upstreams.of_model(model).name == expected


async def test_a_default_may_stand_anywhere_and_a_model_of_nobody_is_not_found() -> None:
    async with opened(settings_of(None, ("b",))) as upstreams:
        assert (upstreams.of_model("b").name, upstreams.of_model("c").name) == ("1", "0")
        assert upstreams.of_stored().name == "0"
    async with opened(settings_of(("a",), ("b",))) as upstreams:
        assert upstreams.of_stored().name == "0"
        with pytest.raises(ApiError) as caught:
            upstreams.of_model("c")
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")


async def test_a_pattern_of_many_stars_costs_nothing() -> None:
    async with opened(settings_of(("*a" * 30 + "b",))) as upstreams:
        with timed(), pytest.raises(ApiError):
            upstreams.of_model("a" * 256)


def test_only_one_that_is_alone_or_says_so_gets_a_clients_key() -> None:
    def takes(is_alone: bool, **values: object) -> bool:
        return takes_client_key(UpstreamSettings.model_validate(values), is_alone=is_alone)

    assert takes(True)
    assert not takes(False)
    assert takes(False, client_key=True)
    assert not takes(True, client_key=False)
    assert not takes(True, api_key="sk-1")


@pytest.mark.parametrize("one", DOORS.values(), ids=DOORS)
async def test_every_door_goes_where_its_model_says(one: Door) -> None:
    upstreams = {
        name: ScriptedUpstream([one.body(f"from {name}")], content_type=JSON) for name in ("openai", "claude", "local")
    }
    async with weir_before(upstreams, FILE) as server:
        for model, name in (("gpt", "openai"), ("claude-1", "claude"), ("house", "claude"), ("qwen3", "local")):
            with recorded() as records:
                reply = await ask(server.url, http_request({**one.ask, "model": model}, path=one.path))
            record = await records.next()
            assert one.hear_body(reply.body).text == f"from {name}"
            assert (record["upstream"], record["model"]) == (name, model)
            assert [len(upstream.requests) for upstream in upstreams.values()].count(1) == 1
            upstreams[name].requests.clear()


POLICIES = """
[policies.strict]
mode = "strict"
[policies.watched]
on_flag = "monitor"
[[rules]]
policy = "strict"
models = ["claude-2"]
"""


async def test_an_upstream_has_a_policy_of_its_own_behind_the_rules() -> None:
    file = FILE.replace('name = "claude"', 'name = "claude"\npolicy = "watched"') + POLICIES
    upstreams = {name: ScriptedUpstream(answer(WORDS)) for name in three()}
    async with weir_before(upstreams, file, ScriptedGuard(labels("SSUU"))) as server:
        for model, policy, is_cut in (("gpt", "default", 1), ("claude-1", "watched", 0), ("claude-2", "strict", 1)):
            with recorded() as records:
                reply = await ask(server.url, model=model, stream=True)
            record = await records.next()
            assert (record["policy"], reply.headers["x-weir-policy"]) == (policy, policy)
            assert (read(reply.body).finish[0] == "content_filter") == bool(is_cut)


def test_an_upstreams_policy_is_one_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "weir.toml"
    text = FILE.replace("{openai}", "http://h").replace("{claude}", "http://h").replace("{local}", "http://h")
    file.write_text(text.replace('name = "local"', 'name = "local"\npolicy = "strict"'))
    with pytest.raises(
        ConfigError, match=r'line 14: \[\[upstream\]\] policy names no policy, "strict"; there are default'
    ):
        load_settings(file, {}, {})


async def test_a_model_of_no_upstream_is_not_found_in_the_words_of_the_door() -> None:
    file = FILE.replace("client_key = true", 'models = ["gpt-*"]')
    async with weir_before(three(), file) as server:
        for door in DOORS.values():
            with recorded() as records:
                reply = await ask(server.url, http_request({**door.ask, "model": "sk-canary"}, path=door.path))
            record = await records.next()
            assert reply.status == 404
            assert reply.error["code"] == "model_not_found"
            assert b"canary" not in reply.raw
            assert (record["outcome"], record["upstream"]) == ("refused", "")
        assert not server.guard.fed
        assert not any(upstream.requests for upstream in server.upstream.values())


async def test_what_was_kept_is_asked_of_the_default_upstream_alone_and_judged() -> None:
    one = DOORS["responses"]
    upstreams = {name: ScriptedUpstream([one.body(f"from {name}")], content_type=JSON) for name in three()}
    async with weir_before(upstreams, FILE) as server:
        with recorded() as records:
            reply = await ask(server.url, http_request(b"", method="GET", path=f"{one.path}/resp_1"))
        record = await records.next()
    assert one.hear_body(reply.body).text == "from openai"
    assert (record["upstream"], record["channels"][0]["scanned"]) == ("openai", len("from openai"))
    assert [len(upstream.requests) for upstream in upstreams.values()] == [1, 0, 0]


async def test_each_upstream_gets_its_own_key_or_the_clients_or_none() -> None:
    upstreams = three()
    headers = {"Authorization": "Bearer sk-client", "x-api-key": "sk-client", "api-key": "sk-client"}
    async with weir_before(upstreams, FILE) as server:
        for model in ("gpt", "claude-1", "qwen3"):
            assert (await ask(server.url, http_request(model=model, headers=headers))).status == 200
    seen = {name: one.requests[0]["headers"] for name, one in upstreams.items()}
    assert seen["openai"]["authorization"] == "Bearer sk-client"
    assert seen["claude"]["authorization"] == "Bearer sk-claude-canary"
    assert "sk-client" not in str(seen["claude"])
    assert "sk-" not in str(seen["local"])
    assert "canary" not in str(seen["openai"])


async def test_the_key_of_the_upstream_that_was_called_is_kept_back() -> None:
    said = b'{"error":{"message":"bad key sk-claude-canary","code":"sk-claude-canary"}}'
    upstreams = {name: ScriptedUpstream([said], status=400, content_type=JSON) for name in three()}
    async with weir_before(upstreams, FILE) as server:
        with recorded() as records:
            reply = await ask(server.url, model="claude-1")
        await records.next()
        assert reply.status == 400
        assert b"canary" not in reply.raw
        assert "canary" not in records.lines[0]
        # One that was never given the key can only have guessed it.
        assert b"canary" in (await ask(server.url, model="gpt")).raw


async def test_an_upstream_that_hangs_harms_no_other() -> None:
    """Its pool is full and its clients wait; the others answer as ever."""
    upstreams = three(local=replies(first_byte_delay=3600))
    file = FILE.replace("first_byte_seconds = 0.5", "first_byte_seconds = 3600")
    async with weir_before(upstreams, file) as server, asyncio.TaskGroup() as group:
        waiting = [group.create_task(ask(server.url, model="qwen3")) for _ in range(5)]
        await upstreams["local"].asked.wait()
        with timed():
            replied = [await ask(server.url, model=model) for model in ("gpt", "claude-1") * 5]
        assert {reply.status for reply in replied} == {200}
        for one in waiting:
            one.cancel()


async def test_an_upstream_that_is_gone_harms_no_other() -> None:
    upstreams = three()
    file = FILE.replace("{local}", "http://127.0.0.1:9/v1")
    async with weir_before(upstreams, file) as server:
        gone, well = await ask(server.url, model="qwen3"), await ask(server.url, model="claude-1")
    assert (gone.status, gone.error["code"]) == (502, "upstream_unreachable")
    assert well.status == 200


async def test_each_has_its_own_deadlines() -> None:
    upstreams = three(local=replies(first_byte_delay=3600), openai=replies(first_byte_delay=0.7))
    async with weir_before(upstreams, FILE) as server:
        assert (await ask(server.url, model="qwen3")).status == 504
        assert (await ask(server.url, model="gpt")).status == 200


@pytest.mark.parametrize("model", ["gpt", "claude-1", "qwen3"])
async def test_a_stream_is_cut_whichever_upstream_it_comes_from(model: str) -> None:
    upstreams = {name: ScriptedUpstream(answer(WORDS)) for name in three()}
    async with weir_before(upstreams, FILE, ScriptedGuard(labels("SSUU"))) as server:
        heard = read((await ask(server.url, model=model, stream=True)).body)
    assert (heard.content, heard.finish[0]) == ("".join(WORDS[:2]) + NOTICE, "content_filter")
