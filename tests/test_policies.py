"""The policy of a request: by route, model, upstream and key, over every door."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from proxy import doors, verdict_handlers
from proxy.config import load_settings
from proxy.policies import Chosen, Policies, policy_of
from proxy.policy import Action, DebounceRule, Mode, Part, ReleaseMode
from proxy.policy_settings import PolicySettings, Route
from proxy.risk import Category, RiskLevel
from proxy.settings import Settings
from tests.doors import DOORS
from tests.driver import DONE, WORDS, answer, chunk, read
from tests.fakes import UNSAFE, ScriptedGuard, ScriptedUpstream, labels
from tests.servers import recorded, weir
from tests.sockets import ask, http_request

Rule = dict[str, Any]
CHAT = "/v1/chat/completions"


def settings_of(**overrides: Any) -> Settings:
    return load_settings(overrides={k.replace("__", "."): v for k, v in overrides.items()}, environ={})


def test_every_setting_of_the_policy_reaches_it() -> None:
    settings = settings_of(
        policy__name="house",
        policy__mode="strict",
        policy__on_flag="annotate",
        policy__debounce=3,
        policy__debounce_rule="any-level",
        policy__release="window",
        policy__window=7,
        policy__categories={"Violent": "block"},
        policy__tool_calls="parts",
    )
    policy = policy_of(settings.policy)
    assert not policy.whole_calls
    assert (policy.name, policy.mode, policy.on_flag) == ("house", Mode.STRICT, Action.ANNOTATE)
    assert (policy.debounce, policy.rule) == (3, DebounceRule.ANY_LEVEL)
    assert (policy.release, policy.window) == (ReleaseMode.WINDOW, 7)
    assert policy.categories == {Category.VIOLENT: Action.BLOCK}


def choice(rules: list[Rule], route: str = CHAT, model: str | None = "m", **names: str) -> str:
    policies = {"kids": {"name": "kids"}, "staff": {"name": "staff"}}
    return (
        Policies(Settings.model_validate({"policies": policies, "rules": rules}))
        .choose(route, model, **names)
        .policy.name
    )


def test_the_first_rule_that_fits_chooses() -> None:
    rules: list[Rule] = [{"policy": "kids", "models": ["gpt-*"]}, {"policy": "staff"}]
    assert choice(rules, model="gpt-5") == "kids"
    assert choice(rules, model="o3") == "staff"
    assert choice(rules[:1], model="o3") == "default"
    assert choice([{"policy": "default", "models": ["o*"]}, *rules], model="o3") == "default"


def test_every_line_of_a_rule_must_fit_and_one_of_its_values() -> None:
    line = {"routes": [CHAT, "/v1/messages"], "models": ["a", "b*"], "upstreams": ["x", "y"], "keys": ["alice"]}
    rules = [{"policy": "kids", **line}]
    good = {"model": "bb", "upstream": "y", "key": "alice"}
    assert choice(rules, **good) == choice(rules, **{**good, "model": "a"}) == "kids"
    for wrong in ({"route": "/v1/responses"}, {"model": "aa"}, {"upstream": "z"}, {"key": "bob"}, {"key": ""}):
        assert choice(rules, **{**good, **wrong}) == "default"


@pytest.mark.parametrize("model", ["GPT-5", " gpt-5", "gpt-5\n", "Gpt-", "gpt-5\nx"])
def test_a_model_goes_by_any_case_and_spaces_that_an_upstream_may_read_over(model: str) -> None:
    assert choice([{"policy": "kids", "models": ["gpt-*"]}], model=model) == "kids"
    assert choice([{"policy": "kids", "models": ["GPT-*"]}], model=model) == "kids"


def test_every_route_that_judges_can_be_named_in_a_rule() -> None:
    routes = set(Route.__args__)  # type: ignore[attr-defined]
    assert routes == {*doors.DOORS, verdict_handlers.MODERATIONS, verdict_handlers.GUARDRAIL}


@pytest.mark.parametrize("name", sorted(DOORS))
async def test_each_door_is_judged_by_the_policy_of_its_rule(name: str) -> None:
    door = DOORS[name]
    rules = [{"policy": "kids", "routes": [door.path], "models": ["m"]}]
    text = "".join(WORDS)
    for model, finish in (("m", door.cut), ("other", door.stop)):
        upstream = ScriptedUpstream([door.body(text)], content_type="application/json")
        guard = ScriptedGuard(labels("SSCC"))
        async with weir(upstream, guard, policies__kids__mode="strict", rules=rules) as server:
            with recorded() as records:
                reply = await ask(server.url, path=door.path, **{**door.ask, "model": model})
            record = await records.next()
        assert door.hear_body(reply.body).finish == finish
        assert reply.headers["x-weir-policy"] == record["policy"] == ("kids" if model == "m" else "default")


async def test_all_that_a_policy_says_of_requests_is_the_chosen_ones() -> None:
    named = {
        "policies__kids__prompt_block": "answer",
        "policies__kids__prompt_notice": "Ask a grown-up.",
        "policies__kids__prompt_check": "before",
        "policies__free__allow_stored": True,
        "policies__free__notice": " [stopped]",
        "rules": [{"policy": "kids", "models": ["k"]}, {"policy": "free", "models": ["f"]}],
    }
    async with weir(ScriptedUpstream(), ScriptedGuard(prompt_level=UNSAFE), **named) as server:
        assert (await ask(server.url, model="d")).status == 400
        reply = await ask(server.url, model="k")
        assert reply.json["choices"][0]["message"]["content"] == "Ask a grown-up."
        assert not server.upstream.requests
    upstream = ScriptedUpstream(answer(WORDS))
    async with weir(upstream, ScriptedGuard(labels("SUU")), **named) as server:
        assert (await ask(server.url, model="d", store=True)).status == 400
        reply = await ask(server.url, model="f", store=True, stream=True)
        assert b"[stopped]" in reply.body


@pytest.mark.parametrize("body", [{"input": "hello", "model": "m"}, {"input": "hello"}])
async def test_the_guards_own_door_goes_by_the_same_rules(body: dict[str, Any]) -> None:
    rules = [{"policy": "kids", "routes": ["/v1/moderations"], "models": ["m"]}]
    async with weir(guard=ScriptedGuard(), policies__kids__mode="strict", rules=rules) as server:
        reply = await ask(server.url, path="/v1/moderations", messages=None, **{"model": None, **body})
    assert reply.headers["x-weir-policy"] == ("kids" if "model" in body else "default")


THINKING = [
    chunk({"reasoning_content": "one two"}),
    chunk({"reasoning_content": " three four"}),
    chunk({"content": "five six"}),
    chunk({"content": " seven eight"}),
    chunk({}, "stop"),
    DONE,
]


async def thought(**overrides: Any) -> tuple[str, str, list[Any]]:
    """What a client reads as reasoning, as content, and of risks, where every third and fourth word is flagged."""
    guard = ScriptedGuard(labels("SSUU"))
    async with weir(ScriptedUpstream(THINKING), guard, policy__notice="", **overrides) as server:
        found = read((await ask(server.url, stream=True)).body)
    notes = [event["weir"] for event in found.events if "weir" in event]
    return found.texts.get((0, "reasoning_content"), ""), found.content, notes


async def test_each_channel_is_judged_by_its_own_policy() -> None:
    whole = ("one two three four", "five six")
    assert (await thought())[:2] == ("one two", "")
    reasoning, content, notes = await thought(policy__channels__reasoning__on_flag="annotate")
    assert (reasoning, content) == whole
    assert any(note.get("channel") == "reasoning_content" and note["risk_level"] == "Unsafe" for note in notes)
    reasoning, content, _ = await thought(policy__on_flag="annotate", policy__channels__content__on_flag="block")
    assert (reasoning, content) == whole
    assert (await thought(policy__channels__content__debounce=3))[:2] == ("one two", "")


async def test_of_a_watched_channel_only_the_record_tells() -> None:
    with recorded() as records:
        reasoning, content, notes = await thought(policy__channels__reasoning__on_flag="monitor")
        record = await records.next()
    assert (reasoning, content) == ("one two three four", "five six")
    assert notes
    assert "reasoning_content" not in json.dumps(notes)
    assert [channel["flagged"] is not None for channel in record["channels"]] == [True, True]


async def test_a_prompt_may_be_annotated_where_answers_are_blocked() -> None:
    guard = ScriptedGuard(labels("SUU"), prompt_level=UNSAFE)
    part = {"policy__channels__prompt__on_flag": "annotate"}
    async with weir(ScriptedUpstream(answer(WORDS)), guard, **part) as server:
        reply = await ask(server.url, stream=True)
    assert reply.status == 200
    assert read(reply.body).finish == {0: "content_filter"}


async def test_a_level_may_be_annotated_where_the_worse_one_is_blocked() -> None:
    for label, finish in (("C", "stop"), ("U", "content_filter")):
        guard = ScriptedGuard(labels(label * 4))
        async with weir(ScriptedUpstream(answer(WORDS)), guard, policy__levels__controversial="annotate") as server:
            with recorded() as records:
                reply = await ask(server.url, stream=True)
            record = await records.next()
        assert read(reply.body).finish == {0: finish}
        assert record["channels"][0]["flagged"]["risk_level"][0] == label


def test_where_nobody_knows_the_model_all_policies_hold_to_which_one_could_lead() -> None:
    rules: list[Rule] = [
        {"policy": "kids", "models": ["a"]},
        {"policy": "staff", "models": ["b"], "routes": ["/v1/responses"]},
        {"policy": "kids", "models": ["c"]},
    ]
    assert choice(rules, model=None) == "kids+default"
    assert choice(rules, "/v1/responses", model=None) == "kids+staff+default"
    assert choice([*rules, {"policy": "staff"}], "/v1/messages", model=None) == "kids+staff"
    assert choice([{"policy": "staff"}, *rules], model=None) == "staff"


def test_of_joined_policies_only_what_both_allow_is_allowed() -> None:
    strict, free = PolicySettings(prompt_check="before"), PolicySettings(allow_stored=True, allow_unscanned=True)
    for one, other in ((strict, free), (free, strict)):
        both = Chosen(one, policy_of(one)).joined(Chosen(other, policy_of(other))).settings
        assert (both.allow_stored, both.allow_unscanned, both.prompt_check) == (False, False, "before")
        assert both.notice == one.notice
    assert Chosen(free, policy_of(free)).joined(Chosen(free, policy_of(free))).settings.allow_stored


async def test_a_client_may_ask_for_a_policy_beside_its_own_and_never_instead() -> None:
    named: dict[str, Any] = {
        "policies__kids__mode": "strict",
        "policies__lax__on_flag": "monitor",
        "policies__lax__allow_stored": True,
        "policy__notice": "",
    }
    cut, whole = "content_filter", "stop"
    ends = {"C": {"": whole, "kids": cut, "lax": whole}, "U": {"": cut, "kids": cut, "lax": cut}}
    for label, by_name in ends.items():
        async with weir(ScriptedUpstream(answer(WORDS)), ScriptedGuard(labels(label * 9)), **named) as server:
            for name, finish in by_name.items():
                wish = {"x-weir-policy": name} if name else {}
                reply = await ask(server.url, http_request(headers=wish, stream=True))
                assert read(reply.body).finish == {0: finish}, (label, name)
                assert reply.headers["x-weir-policy"] == ("default" if not name else f"default+{name}")
            stored = await ask(server.url, http_request(store=True, headers={"x-weir-policy": "lax"}))
            unknown = await ask(server.url, http_request(headers={"x-weir-policy": "nobody"}))
            assert "x-weir-policy" not in server.upstream.requests[-1]["headers"]
    assert stored.status == 400
    assert (unknown.status, unknown.error["code"]) == (400, "unknown_policy")


PAGE = (Path(__file__).parent.parent / "docs" / "policies.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_file_on_the_page_of_policies_is_accepted(tmp_path: Path, number: int) -> None:
    (tmp_path / "weir.toml").write_text(EXAMPLES[number])
    Policies(load_settings(tmp_path / "weir.toml", {}, {}))


def test_the_page_of_policies_says_what_they_do(tmp_path: Path) -> None:
    one, several = EXAMPLES[:2]
    (tmp_path / "weir.toml").write_text(one)
    policy = Policies(load_settings(tmp_path / "weir.toml", {}, {})).default.policy
    assert policy.action(Category.VIOLENT, RiskLevel.CONTROVERSIAL) is Action.ANNOTATE
    assert policy.of(Part.REASONING).action(Category.VIOLENT) is Action.ANNOTATE
    assert (policy.action(Category.COPYRIGHT), policy.action(Category.VIOLENT)) == (Action.ALLOW, Action.BLOCK)
    (tmp_path / "weir.toml").write_text(several)
    policies = Policies(load_settings(tmp_path / "weir.toml", {}, {}))
    staff = policies.choose(CHAT, "GPT-5").policy
    assert (staff.name, staff.mode, staff.action(Category.POLITICAL)) == ("staff", Mode.LOOSE, Action.ALLOW)
    assert staff.action(Category.PII) is Action.BLOCK
    assert policies.choose("/v1/messages", "gpt-5").policy.name == "default"
