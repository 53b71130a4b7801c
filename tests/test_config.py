"""Three sources, and a sentence for whatever cannot be meant."""

import re
from pathlib import Path

import pytest

from proxy.config import FLAGS, ConfigError, Settings, load_settings, require_upstream
from proxy.policy import Part
from proxy.risk import Category
from proxy.setting_names import NAMES


def load(tmp_path: Path, text: str, **environ: str) -> Settings:
    file = tmp_path / "weir.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file, {}, environ)


def refusal(tmp_path: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_without_any_source_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, {}, {"PATH": "/bin", "OPENAI_API_KEY": "sk-other"}) == Settings()


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weir.toml").write_text('[server]\nport = 1\nhost = "a"\nmax_streams = 3\n')
    environ = {"WEIR_SERVER__PORT": "2", "WEIR_SERVER__HOST": "b"}
    server = load_settings(None, {"server.port": 4}, environ).server
    assert (server.port, server.host, server.max_streams) == (4, "b", 3)


def test_a_section_without_keys_changes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "[server]\n[log]\n[policy.categories]\n") == Settings()
    assert load(tmp_path, "[server]\n", WEIR_SERVER__PORT="2").server.port == 2
    assert "there is no setting servr" in refusal(tmp_path, "[servr]\n")


def test_every_key_can_be_a_variable(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "",
        WEIR_UPSTREAM__BASE_URL="http://h/v1",
        WEIR_UPSTREAM__API_KEY="sk-1",
        WEIR_UPSTREAM__IDLE_SECONDS="1.5",
        WEIR_GUARD__THREADS="2",
        WEIR_GUARD__DEVICE="cuda:1",
        WEIR_POLICY__ALLOW_UNSCANNED="true",
        WEIR_POLICY__NOTICE="Stopped.",
        WEIR_POLICY__NAME="123",
        WEIR_LOG__FILE="/tmp/weir.log",
        WEIR_SERVER__HOST="",  # an empty variable is an unset one
    )
    assert settings.upstream.base_url == "http://h/v1"
    assert settings.upstream.api_key is not None
    assert settings.upstream.api_key.get_secret_value() == "sk-1"
    assert settings.upstream.idle_seconds == 1.5
    assert (settings.guard.threads, settings.guard.device) == (2, "cuda:1")
    assert (settings.policy.allow_unscanned, settings.policy.notice, settings.policy.name) == (True, "Stopped.", "123")
    assert settings.log.file == Path("/tmp/weir.log")
    assert settings.server.host == "127.0.0.1"


def test_categories_of_file_and_environment_are_joined_whatever_their_spelling(tmp_path: Path) -> None:
    text = '[policy.categories]\n"Self-Harm" = "block"\npii = "annotate"\nviolent = "allow"\n'
    settings = load(tmp_path, text, WEIR_POLICY__CATEGORIES__SELF_HARM="allow")
    assert settings.policy.categories == {
        Category.SELF_HARM: "allow",
        Category.PII: "annotate",
        Category.VIOLENT: "allow",
    }


def test_a_named_policy_inherits_and_a_rule_chooses_it(tmp_path: Path) -> None:
    text = """
[policy]
mode = "strict"
release = "window"
window = 9
[policy.categories]
pii = "annotate"
[policies.kids]
release = "hold"
[policies.kids.categories]
violent = "block"
[policies.same]
[[rules]]
policy = "kids"
models = ["gpt-*", "o?"]
routes = ["/v1/responses"]
"""
    settings = load(tmp_path, text, WEIR_POLICIES__KIDS__DEBOUNCE="1")
    kids = settings.policies["kids"]
    assert (kids.name, kids.mode, kids.release, kids.window, kids.debounce) == ("kids", "strict", "hold", 0, 1)
    assert kids.categories == {Category.PII: "annotate", Category.VIOLENT: "block"}
    assert settings.policies["same"] == settings.policy.model_copy(update={"name": "same"})
    assert settings.rules[0].models == ("gpt-*", "o?")


def test_levels_and_channels(tmp_path: Path) -> None:
    text = """
[policy]
mode = "strict"
[policy.levels]
controversial = "annotate"
[policy.channels.reasoning]
on_flag = "annotate"
[policies.kids]
debounce = 1
"""
    settings = load(tmp_path, text, WEIR_POLICIES__KIDS__LEVELS__CONTROVERSIAL="block")
    for policy, action in ((settings.policy, "annotate"), (settings.policies["kids"], "block")):
        reasoning = policy.channels[Part.REASONING]
        assert policy.levels == reasoning.levels == {"Controversial": action}
        assert (reasoning.on_flag, reasoning.mode, reasoning.debounce) == ("annotate", "strict", policy.debounce)


def test_every_flag_sets_a_key_that_exists() -> None:
    assert {tuple(key.split(".")) for key in FLAGS} <= set(NAMES)


TYPOS = [
    ("[sever]\nport = 1", "line 2: there is no setting [sever] port; did you mean [server] port?"),
    ("[server]\nprot = 1", "line 2: there is no setting [server] prot; did you mean [server] port?"),
    (
        "[server]\n\n# x\nmax_choice = 1",
        "line 4: there is no setting [server] max_choice; did you mean [server] max_choices?",
    ),
    ("port = 1", "line 1: there is no setting port; did you mean [server] port?"),
    ("server = 1", "line 1: [server] is a section: its keys go below it, a line each."),
    ("[[server]]\nport = 1", "line 1: [server] is a section"),
    ("[server]\nmode = 'strict'", "there is no setting [server] mode; did you mean [policy] mode?"),
    ("[gaurd]\nmodel = 'x'", "there is no setting [gaurd] model; did you mean [guard] model?"),
    ("[server.port]\nx = 1", "line 2: there is no setting [server] port.x; did you mean [server] port?"),
    ("server.prot = 1", "line 1: there is no setting [server] prot; did you mean [server] port?"),
    ("[zzz]\nqqq = 1", "there is no setting [zzz] qqq."),
    ("[server]\nport = 80800", "line 2: [server] port must be less than or equal to 65535, not 80800."),
    ("[server]\nport = -1", "must be greater than or equal to 0, not -1"),
    ("[server]\nport = true", "[server] port must be a number, not true or false."),
    ("[server]\nport = 'eighty'", '[server] port must be a whole number, not "eighty".'),
    ("[server]\nport = 80.5", "[server] port must be a whole number, not 80.5."),
    ("[server]\nport = []", "[server] port must be a whole number."),
    ("[server]\nport = 2020-01-01", "[server] port must be a whole number."),
    ("[server]\nhost = 1", "[server] host must be text, not 1."),
    ("[server]\nhost = ''", "[server] host must be one line of text, not empty."),
    ("[server]\nmax_choices = 0", "must be greater than or equal to 1"),
    ("[server]\nrequest_seconds = 0", "must be greater than 0"),
    ("[server]\nrequest_seconds = nan", "[server] request_seconds must be "),
    ("[server]\nrequest_seconds = inf", "[server] request_seconds must be less than or equal to 86400"),
    ("[server]\nheartbeat_seconds = 61", "must be less than or equal to 50"),
    ("[upstream]\nbase_url = 'api.openai.com'", "[upstream] base_url must start with http:// or https://."),
    ("[upstream]\nbase_url = 1", "[upstream] base_url must be text."),
    ("[upstream]\napi_key = 'sk-canary 1'", "[upstream] api_key must be printable ASCII characters"),
    ("[upstream]\napi_key = 7", "[upstream] api_key must be text."),
    ("[upstream]\napikey = 'sk-canary'", "did you mean [upstream] api_key?"),
    ("[guard]\ndevice = 'gpu'", "[guard] device must be auto, cpu, mps, cuda or cuda:N."),
    (
        "[guard]\ndtype = 'bf16'",
        '[guard] dtype must be "auto", "float32", "bfloat16", "float16" or "int8", not "bf16"; did you',
    ),
    ("[guard.sha256]\n'../x' = '" + "0" * 64 + "'", "[guard] sha256.../x must be the name of a file, without a folder"),
    ("[guard.sha256]\n'config.json' = 'abc'", "[guard] sha256.config.json must be 64 digits, 0 to 9 and a to f"),
    ("[guard.sha256]\nconfig.json = 'abc'", "there is no setting [guard] sha256.config.json"),
    ("[guard]\nsha256 = 'abc'", "line 2: [guard] sha256 must be a table"),
    ("[guard]\non_failure = 'opne'", 'must be "closed" or "open", not "opne"; did you mean "open"?'),
    (
        "[policy]\nmode = 'Strict'",
        'line 2: [policy] mode must be "loose" or "strict", not "Strict"; did you mean "strict"?',
    ),
    ("[policy]\non_flag = 'log'", '"block", "annotate" or "monitor", not "log".'),
    ("[policy]\ndebounce = 9", "[policy] debounce must be less than or equal to 8, not 9."),
    ("[policy]\nwindow = 5", 'line 2: window is set, but only release = "window" uses it.'),
    ("[policy]\nrelease = 'window'", 'line 2: release = "window" needs a window above 0'),
    ("[policy]\nname = 'a b'", "[policy] name must be 1 to 64 letters"),
    ("[policy]\ncategories = 'PII'", "[policy] categories must be a table"),
    (
        "[policy]\ncategories = {violnt = 'allow'}",
        "line 2: there is no setting [policy] categories.violnt; did you mean",
    ),
    ("[policy.categories]\npii = 'alow'", "line 2: [policy] categories.PII must be"),
    (
        "[policy.categories]\npii = 'allow'\nPII = 'block'",
        "line 3: [policy] categories.PII is given a second time, after",
    ),
    (
        "[policies.kids]\nmdoe = 'strict'",
        "line 2: there is no setting [policies.kids] mdoe; did you mean [policies.kids] mo",
    ),
    ("[policies.kids]\nname = 'x'", "line 2: there is no setting [policies.kids] name"),
    ("[policies.kids]\nmode = 'hard'", 'line 2: [policies.kids] mode must be "loose" or "strict", not "hard".'),
    (
        "[policies.kids.categories]\npi = 'allow'",
        "line 2: there is no setting [policies.kids] categories.pi; did you mea",
    ),
    (
        "[policy.channels.reasonin]\nmode = 'strict'",
        "line 2: there is no setting [policy.channels.reasonin] mode",
    ),
    ("[policy.channels.reasoning]\nnotice = 'x'", "line 2: there is no setting [policy.channels.reasoning] notice"),
    ("[policy.channels.reasoning]\nmode = 'x'", 'line 2: [policy.channels.reasoning] mode must be "loose"'),
    ("[policy.channels.tools]\nrelease = 'window'", 'line 2: release = "window" needs a window above 0'),
    ("[policy]\nmode = 'x'\n[policy.channels.reasoning]\ndebounce = 1", "line 2: [policy] mode must be"),
    ("[policy.levels]\nsafe = 'block'", "line 2: there is no setting [policy] levels.Safe"),
    ("[policy.levels]\nunsafe = 'x'", "line 2: [policy] levels.Unsafe must be"),
    ("[policies]\nkids = 1", "line 2: [policies] kids must be a table"),
    ("policies = 1", "line 1: policies must be a table"),
    ("[policies.'a b']\nmode = 'strict'", "[policies] a b must be 1 to 64 letters"),
    ("[policies.default]\nmode = 'strict'", "[policies] default has the name that [policy] has."),
    ("[policies.kids]\nwindow = 5", 'line 2: window is set, but only release = "window" uses it.'),
    ("[policy]\nmode = 'hard'\n[policies.kids]\ndebounce = 1", 'line 2: [policy] mode must be "loose"'),
    ("[policy]\nwindow = 5\n[policies.kids]\ndebounce = 1", "line 2: window is set"),
    (
        "[[rules]]\npolicy = 'default'\nupstreams = ['openai']",
        'line 3: [[rules]] upstreams names no upstream, "openai"; there are default.',
    ),
    ("[[rules]]\npolicy = 'kids'", 'line 2: [[rules]] policy names no policy, "kids"; there are default.'),
    ("[[rules]]\nroutes = ['/v1/chat/completions']", "line 2: [[rules]] policy must be given"),
    (
        "[[rules]]\npolicy = 'default'\n[[rules]]\npolicy = 'default'\nmodel = ['x']",
        "line 5: there is no setting [[rules]] m",
    ),
    (
        "[[rules]]\npolicy = 'default'\nroutes = ['/v1/chat']",
        'line 3: [[rules]] routes must be "/v1/chat/completions"',
    ),
    ("[[rules]]\npolicy = 'default'\nmodels = []", "line 3: [[rules]] models must name at least one."),
    ("[[rules]]\npolicy = 'default'\nmodels = 'gpt'", "line 3: [[rules]] models must be a list"),
    ("rules = 1", "line 1: [[rules]] must be a list"),
    ("rules = [1]", "line 1: [[rules]] must be a table, not 1."),
    ("[annotations]\nweir = 'maybe'", '[annotations] weir must be true or false, not "maybe".'),
    ("[log]\nlevel = 'INFO'", 'not "INFO"; did you mean "info"?'),
    ("[log]\nfile = 3", "[log] file must be a file's path, not 3."),
    ('[server]\n"p\\u006frt" = -1', "weir.toml: [server] port must be greater"),  # the line is not found
    ("[server", "line 1, column 8: is not valid TOML: expected ']'"),
    ("[server]\nport = ", "line 2, column 8: is not valid TOML: invalid value."),
    ("[server]\nport = 1\nport = 2", "line 3, column 9: is not valid TOML: cannot overwrite a value."),
    ("[server]\nport = 1 2", "is not valid TOML"),
    ("a = " + "[" * 5000, "is nested too deeply."),
    ("[server]\nport = " + "9" * 5000, "is not valid TOML"),
]


@pytest.mark.parametrize(("text", "sentence"), TYPOS, ids=range(len(TYPOS)))
def test_a_typo_is_refused_with_file_key_and_reason(tmp_path: Path, text: str, sentence: str) -> None:
    said = refusal(tmp_path, f"{text}\n")
    assert sentence in said
    assert said.startswith("weir.toml")
    assert "canary" not in said
    assert said.endswith((".", "?"))
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("WEIR_SERVER_PORT", "1", "there is no setting WEIR_SERVER_PORT; did you mean WEIR_SERVER__PORT?"),
        ("WEIR_PORT", "1", "there is no setting WEIR_PORT"),
        ("WEIR_SERVER__PROT", "1", "did you mean WEIR_SERVER__PORT?"),
        ("WEIR_SERVER__PORT__X", "1", "did you mean WEIR_SERVER__PORT?"),
        ("WEIR_", "1", "there is no setting WEIR_."),
        ("WEIR_SERVER", "1", "[server] is a section"),
        ("WEIR_SERVER__PORT", "x", '[server] port must be a whole number, not "x".'),
        ("WEIR_POLICY__MODE", "hard", '[policy] mode must be "loose" or "strict", not "hard".'),
        ("WEIR_POLICY__CATEGORIES__SELF_HRM", "allow", "did you mean WEIR_POLICY__CATEGORIES__SELF_HARM?"),
        ("WEIR_UPSTREAM__API_KEY", "a canary", "[upstream] api_key must be printable ASCII"),
        ("WEIR_UPSTREAM__BASE_URL", "http://canary@h", "must not hold a user name or password"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(tmp_path: Path, name: str, value: str, sentence: str) -> None:
    said = refusal(tmp_path, "", **{name: value})
    assert said.startswith(f"{name}: ")
    assert sentence in said
    assert "canary" not in said


def test_a_wrong_flag_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r'^--port: \[server\] port must be a whole number, not "x"\.$'):
        load_settings(None, {"server.port": "x"}, {})


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, "[server]\nport = -1\nhost = ''\n[policy]\nmode = 1\n", WEIR_LOG__LEVEL="loud")
    assert len(said.splitlines()) == 4


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: no such file or directory\."):
        load_settings(tmp_path / "nowhere.toml", {}, {})
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        load_settings(tmp_path, {}, {})
    (tmp_path / "latin.toml").write_bytes(b"[policy]\nnotice = '\xe9'")
    with pytest.raises(ConfigError, match=r"latin\.toml: is not UTF-8 text\."):
        load_settings(tmp_path / "latin.toml", {}, {})


def test_the_settings_in_the_readme_are_accepted(tmp_path: Path) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```toml\n(.*?)^```", readme, re.DOTALL | re.MULTILINE):
        load(tmp_path, block)
        load(tmp_path, re.sub(r"^# (?=\w+ = )", "", block, flags=re.MULTILINE))  # what is commented out, too


SEVERAL = """\
[[upstream]]
name = "openai"
base_url = "https://api.openai.com/v1"
[[upstream]]
name = "Claude-2"
base_url = "https://api.anthropic.com/v1"
models = ["claude-*"]
idle_seconds = 9
"""


def test_several_upstreams_are_read_in_order_and_variables_reach_each_by_its_name(tmp_path: Path) -> None:
    environ = {"WEIR_UPSTREAM__CLAUDE_2__API_KEY": "sk-2", "WEIR_UPSTREAM__OPENAI__CLIENT_KEY": "true"}
    openai, claude = load(tmp_path, SEVERAL, **environ).upstreams
    assert (openai.name, openai.models, openai.client_key, openai.api_key) == ("openai", None, True, None)
    assert (claude.name, claude.models, claude.idle_seconds) == ("Claude-2", ("claude-*",), 9.0)
    assert claude.api_key is not None
    assert claude.api_key.get_secret_value() == "sk-2"


def test_one_upstream_is_the_only_one(tmp_path: Path) -> None:
    assert [one.base_url for one in load(tmp_path, "[upstream]\nbase_url = 'http://h'").upstreams] == ["http://h"]


@pytest.mark.parametrize(
    ("more", "environ", "sentence"),
    [
        ("[[upstream]]\nname = 'c'\nmodels = ['x']", {}, 'line 10: the upstream "c" has no base_url.'),
        (
            "[[upstream]]\nname = 'c'\nbase_url = 'http://c'",
            {},
            'line 10: neither "openai" nor "c" has models, and only one upstream can be the one for all other models.',
        ),
        ("bse_url = 'x'", {}, "line 9: there is no setting [[upstream]] bse_url; did you mean [[upstream]] base_url?"),
        ("max_connections = 0", {}, "line 9: [[upstream]] max_connections must be greater than or equal to 1, not 0."),
        ("[[upstream]]\nname = 'c'\nbase_url = 'canary'\nmodels = []", {}, "line 11: [[upstream]] base_url must"),
        ("[[upstream]]\nname = 'c'\nbase_url = 'http://c'\nmodels = ['']", {}, "line 12: [[upstream]] models must be"),
        ("[[upstream]]\nname = 'c'\nbase_url = 'http://c'\nmodels = 'c'", {}, "models must be a list"),
        ("[[upstream]]\nname = 'c c'\nbase_url = 'http://c'\nmodels = ['c']", {}, "[[upstream]] name must be 1 to 64"),
        ("api_key = 'sk canary'", {}, "[[upstream]] api_key must be printable"),
        ("api_key = 'sk-canary'\nclient_key = true", {}, "line 10: client_key is true, but with an api_key"),
        ("", {"WEIR_UPSTREAM__API_KEY": "canary"}, "did you mean WEIR_UPSTREAM__OPENAI__API_KEY?"),
        ("", {"WEIR_UPSTREAM__OPEN__API_KEY": "canary"}, "did you mean WEIR_UPSTREAM__OPENAI__API_KEY?"),
        (
            "",
            {"WEIR_UPSTREAM__OPENAI__API_KEY": "a canary"},
            "WEIR_UPSTREAM__OPENAI__API_KEY: [[upstream]] api_key must",
        ),
    ],
)
def test_several_upstreams_that_cannot_be_meant_are_refused(
    tmp_path: Path, more: str, environ: dict[str, str], sentence: str
) -> None:
    said = refusal(tmp_path, SEVERAL + more, **environ)
    assert sentence in said
    assert "canary" not in said


def test_a_flag_cannot_stand_for_one_of_several(tmp_path: Path) -> None:
    (tmp_path / "weir.toml").write_text(SEVERAL)
    with pytest.raises(ConfigError, match=r"^--upstream: there is no setting \[upstream\] base_url; did you mean \[\["):
        load_settings(tmp_path / "weir.toml", {"upstream.base_url": "http://h"}, {})


@pytest.mark.parametrize("number", range(3))
def test_every_file_on_the_page_of_upstreams_is_accepted(tmp_path: Path, number: int) -> None:
    page = (Path(__file__).parent.parent / "docs" / "upstreams.md").read_text(encoding="utf-8")
    files = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(files) == 3
    settings = load(tmp_path, files[number])
    require_upstream(settings)
    load(tmp_path, re.sub(r"^# (?=\w+ = )", "", files[number], flags=re.MULTILINE))  # what is commented out, too
    assert [one.name for one in settings.upstreams] == [
        ["anthropic", "local", "openai"],
        ["openai", "local"],
        ["openai"],
    ][number]


def test_a_missing_upstream_says_what_to_do() -> None:
    with pytest.raises(
        ConfigError, match=r"^weir serve needs an upstream: pass --upstream URL, or set \[upstream\] base_url"
    ):
        require_upstream(Settings())
    require_upstream(load_settings(None, {"upstream.base_url": "http://h"}, {}))
