"""What a file of settings leads to, told before anybody is served."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main
from proxy.config import load_settings
from proxy.policies import Policies
from proxy.policy import Verdict
from proxy.policy_check import CHANNELS, outcomes
from proxy.risk import Category, RiskLevel
from tests.fakes import risk
from tests.reliability.environment import environment

FILE = """
[policy]
mode = "strict"
[policy.categories]
"PII" = "annotate"
[policy.channels.reasoning]
on_flag = "annotate"
debounce = 1
[policies.staff]
mode = "loose"
prompt_block = "answer"
release = "window"
window = 20
[policies.watch]
on_flag = "monitor"
prompt_check = "before"
[[rules]]
policy = "watch"
routes = ["/v1/moderations"]
[[rules]]
policy = "staff"
models = ["gpt-*"]
keys = ["alice"]
[[auth.keys]]
name = "alice"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    path = tmp_path / "weir.toml"
    path.write_text(FILE)
    return path


def told(file: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["policy", "check", str(file), *flags]) == 0
    return capsys.readouterr().out


def rows(text: str, policy: str) -> list[list[str]]:
    lines = text.partition(f"policy {policy} ")[2].partition("\n\n")[0].splitlines()
    return [line.split() for line in lines if line.strip().startswith(("Controversial", "Unsafe"))]


def test_tables_say_what_comes_of_each_risk(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(file, capsys)
    assert max(map(len, text.splitlines())) <= 120
    assert rows(text, "default") == [
        ["Controversial", "the", "rest", "refused", "cut", "told", "cut", "cut", "cut"],
        ["Controversial", "PII", *["told"] * 6],
        ["Unsafe", "the", "rest", "refused", "cut", "told", "cut", "cut", "cut"],
        ["Unsafe", "PII", *["told"] * 6],
    ]
    assert rows(text, "staff")[0] == ["Controversial", "all", *["passes"] * 6]
    assert rows(text, "staff")[1] == ["Unsafe", "the", "rest", "notice", "cut", "told", "cut", "cut", "cut"]
    assert rows(text, "watch") == [[level, "all", *["noted"] * 6] for level in ("Controversial", "Unsafe")]
    for said in (
        "2 flagged tokens in a row make a flag (same-level); nothing leaves unjudged.",
        "2 flagged tokens in a row make a flag (same-level); 20 characters may leave before their verdict.",
        "2 flagged tokens in a row make a flag (same-level); nothing is held for a verdict.",
        "In reasoning: One flagged token makes a flag; nothing leaves unjudged.",
        "The prompt is judged before the upstream is called.",
        "cut: the answer ends before the first flagged token",
    ):
        assert said in text


ROUTES: list[tuple[list[str], str, list[str]]] = [
    (["--model", "gpt-5", "--key", "alice"], "gets policy staff, by rule 2", ["routes", "fits"]),
    (["--model", "gpt-5"], "gets policy default, by default", ["routes", "keys"]),
    (["--model", "o3", "--key", "alice"], "gets policy default, by default", ["routes", "models"]),
    (["--route", "/v1/moderations", "--model", "m"], "gets policy watch, by rule 1", ["fits", "keys, models"]),
    (["--key", "alice"], "gets staff+default: without a model", ["routes", "fits"]),
]


@pytest.mark.parametrize(("flags", "gets", "fits"), ROUTES, ids=range(len(ROUTES)))
def test_a_request_gets_the_policy_of_the_rule_that_fits(
    file: Path, capsys: pytest.CaptureFixture[str], flags: list[str], gets: str, fits: list[str]
) -> None:
    text = told(file, capsys, *flags)
    assert f"  {gets}" in text
    for number, said in enumerate(fits, 1):
        words = "fits" if said == "fits" else f"does not fit in its {said}"
        assert f"  rule {number}, policy {('watch', 'staff')[number - 1]}: {words}\n" in text


def test_an_upstreams_own_policy_is_told_as_such(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(FILE + '[upstream]\nbase_url = "http://h"\npolicy = "staff"\n')
    assert "  gets policy staff, by its upstream" in told(file, capsys, "--model", "o3")
    assert "  gets policy staff, by rule 2" in told(file, capsys, "--model", "gpt-5", "--key", "alice")
    found: Any = json.loads(told(file, capsys, "--json", "--model", "o3"))
    assert (found["policy"], found["rule"], found["by_upstream"]) == ("staff", None, True)


def test_json_says_the_same(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: Any = json.loads(told(file, capsys, "--json", "--model", "gpt-5", "--key", "alice"))
    assert (found["policy"], found["rule"]) == ("staff", 2)
    assert found["request"]["model"] == "gpt-5"
    assert found["rules"][0] == {"policy": "watch", "misfits": ["routes"]}
    assert [policy["name"] for policy in found["policies"]] == ["default", "staff", "watch"]
    [cell] = [
        one
        for one in found["policies"][1]["outcomes"]
        if (one["channel"], one["level"], one["category"]) == ("prompt", "Unsafe", "Violent")
    ]
    assert (cell["action"], cell["outcome"]) == ("block", "notice")


def test_what_is_told_is_what_the_policy_does(file: Path) -> None:
    for chosen in Policies(load_settings(file, {}, {})).all:
        for one in outcomes(chosen):
            policy = chosen.policy.of(CHANNELS[one.channel])
            verdict = policy.judge_prompt(risk(RiskLevel(one.level), Category(one.category)))
            assert (verdict is Verdict.BLOCK) == (one.outcome in ("cut", "refused", "notice"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--key", "bob"], 'There is no key "bob"; there are alice.'),
        (["--upstream", "x"], 'There is no upstream "x"; there are default.'),
    ],
)
def test_names_that_there_are_not_are_2_and_a_sentence(
    file: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert main(["policy", "check", str(file), *flags]) == 2
    assert capsys.readouterr().err.strip() == said


def test_a_file_that_cannot_be_used_is_2_with_line_and_reason(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[policy]\nmode = 'hard'\n")
    assert main(["policy", "check", str(file)]) == 2
    assert 'weir.toml line 2: [policy] mode must be "loose" or "strict"' in capsys.readouterr().err


def test_a_route_that_is_none_is_2(file: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["policy", "check", str(file), "--route", "/v1/files"])
    assert caught.value.code == 2
