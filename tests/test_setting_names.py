"""Names of settings as paths, and what a named policy has from [policy]."""

from typing import Any

import pytest

from proxy.setting_names import NAMES, as_lists, inherited, is_known, is_list, kind_of, over, siblings, written


def test_every_name_is_known() -> None:
    assert all(is_known(name) for name in NAMES)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("policies.kids.mode", True),
        ("policies.kids.categories.PII", True),
        ("policies.kids.categories.Nonsense", False),
        ("policies.kids", True),
        ("policies.kids.name", False),
        ("policies.kids.mode.x", False),
        ("policy.levels.Unsafe", True),
        ("policy.levels.Safe", False),
        ("policy.channels.reasoning.mode", True),
        ("policy.channels.reasoning.notice", False),
        ("policies.kids.channels.tools.categories.PII", True),
        ("policy.channels.thoughts.mode", False),
        ("rules.0.models", True),
        ("rules.x.models", False),
        ("rules.0.model", False),
        ("server", False),
        ("nowhere", False),
        ("upstream_tables.x.name", False),
    ],
)
def test_paths_are_followed_through_tables_and_lists(path: str, expected: bool) -> None:
    assert is_known(tuple(path.split("."))) is expected


def test_lists_and_kinds() -> None:
    assert is_list(("rules",))
    assert not is_list(("rules", "0", "models"))
    assert not is_list(("policies",))
    assert not is_list(())
    assert kind_of(("policy", "window", "x")) is None


def test_names_are_written_as_in_the_file() -> None:
    assert written(("server", "port")) == "[server] port"
    assert written(("policies", "kids", "mode")) == "[policies.kids] mode"
    assert written(("policy", "channels", "tools", "mode")) == "[policy.channels.tools] mode"
    assert written(("policies", "kids")) == "[policies] kids"
    assert written(("rules", "0", "policy")) == "[[rules]] policy"
    assert written(("rules", "0")) == "[[rules]]"
    assert written(("port",)) == "port"


def test_what_could_be_meant_is_sought_in_the_same_table() -> None:
    assert ("policies", "kids", "mode") in siblings(("policies", "kids", "mdoe"))
    assert ("rules", "3", "models") in siblings(("rules", "3", "model"))
    assert siblings(("sever", "port")) == []


def test_a_list_comes_in_the_order_of_its_numbers() -> None:
    tree = {"rules": {str(number): {"policy": str(number)} for number in (0, 10, 9)}, "policies": {"1": {}}}
    assert as_lists(tree) == {"rules": [{"policy": "0"}, {"policy": "9"}, {"policy": "10"}], "policies": {"1": {}}}
    assert as_lists({"rules": "x"}) == {"rules": "x"}


def test_a_named_policy_is_filled_up_from_the_default() -> None:
    policy = {"name": "house", "mode": "strict", "categories": {"PII": "allow", "Violent": "block"}}
    kids: dict[str, Any] = {"categories": {"PII": "block"}, "debounce": 1}
    assert inherited({"policy": policy, "policies": {"kids": kids}})["policies"] == {
        "kids": {
            "name": "kids",
            "mode": "strict",
            "debounce": 1,
            "categories": {"PII": "block", "Violent": "block"},
        }
    }
    assert inherited({"policies": {"kids": 5}}) == {"policy": {}, "policies": {"kids": 5}}
    assert inherited({"policies": 5, "policy": policy}) == {"policies": 5, "policy": policy}


def test_a_channel_is_filled_up_from_its_own_policy() -> None:
    policy = {"name": "house", "mode": "strict", "notice": "x", "channels": {"reasoning": {"on_flag": "annotate"}}}
    kids: dict[str, Any] = {"debounce": 1, "channels": {"tools": {"mode": "loose"}, "refusal": 5}}
    found = inherited({"policy": policy, "policies": {"kids": kids}})
    assert found["policy"]["channels"] == {"reasoning": {"mode": "strict", "on_flag": "annotate"}}
    assert found["policies"]["kids"]["channels"] == {
        "reasoning": {"mode": "strict", "on_flag": "annotate", "debounce": 1},
        "tools": {"mode": "loose", "debounce": 1},
        "refusal": 5,
    }


def test_what_a_named_policy_says_for_all_channels_holds_in_those_of_the_default_too() -> None:
    reasoning = {"on_flag": "annotate", "debounce": 1, "categories": {"PII": "allow", "Violent": "allow"}}
    tree = {"policy": {"channels": {"reasoning": reasoning}}, "policies": {"watch": {"on_flag": "monitor"}}}
    assert inherited(tree)["policies"]["watch"]["channels"]["reasoning"] == {**reasoning, "on_flag": "monitor"}
    tree["policies"] = {"kids": {"categories": {"PII": "block"}, "channels": {"reasoning": {"debounce": 3}}}}
    found = inherited(tree)["policies"]["kids"]["channels"]["reasoning"]
    assert (found["debounce"], found["categories"]) == (3, {"PII": "block", "Violent": "allow"})


def test_a_window_is_not_inherited_by_a_policy_that_holds() -> None:
    below = {"release": "window", "window": 9}
    assert over(below, {"release": "hold"}) == {"release": "hold"}
    assert over(below, {"mode": "strict"}) == {**below, "mode": "strict"}
