"""`weir policy check`: what each policy of a file makes of each risk, and which policy a request would get."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from proxy.config import ConfigError, load_settings
from proxy.policies import Chosen, Policies, misfits
from proxy.policy import Action, Part, Policy
from proxy.policy_settings import PolicySettings, Route
from proxy.risk import PROMPT_CATEGORIES, RESPONSE_CATEGORIES, Category, RiskLevel
from proxy.settings import Settings
from proxy.upstreams import serves

LEVELS = (RiskLevel.CONTROVERSIAL, RiskLevel.UNSAFE)
OTHER = "other"  # what is none of the parts: a transcript, a field that nobody knows
CHANNELS: Mapping[str, Part | None] = {**{str(part): part for part in Part}, OTHER: None}

WORDS: Mapping[Action, str] = {
    Action.BLOCK: "cut",
    Action.ANNOTATE: "told",
    Action.MONITOR: "noted",
    Action.ALLOW: "passes",
}
LEGEND = """\
cut: the answer ends before the first flagged token, content_filter
refused: HTTP 400, content_filter, and nothing of an answer
notice: a normal answer, which says prompt_notice
told: delivered, with its risk beside it
noted: delivered unchanged, only the record tells
passes: not flagged at all; so does all that is Safe"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of which the policy is asked; None for what is not said."""

    route: str | None = None
    model: str | None = None
    upstream: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comes of one risk in one channel."""

    channel: str
    level: str
    category: str
    action: str
    outcome: str


def run(file: Path, asked: Asked, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Print it; returns the exit status. Raises ConfigError."""
    settings = load_settings(file, {}, environ)
    policies = Policies(settings)
    route = _route(settings, policies, asked)
    if as_json:
        print(json.dumps(_as_dict(policies, route), ensure_ascii=True))
        return 0
    console = Console()
    for chosen in policies.all:
        console.print(_table(chosen))
        print("\n".join([*_more(chosen), ""]))
    print("\n".join([LEGEND, "", *_said(route)]))
    return 0


def outcomes(chosen: Chosen) -> Iterator[Outcome]:
    """For every risk in every channel in which it can be."""
    for channel, part in CHANNELS.items():
        for level in LEVELS:
            for category in PROMPT_CATEGORIES if part is Part.PROMPT else RESPONSE_CATEGORIES:
                action = chosen.policy.of(part).action(category, level)
                yield Outcome(channel, str(level), str(category), str(action), _word(action, part, chosen.settings))


def _word(action: Action, part: Part | None, settings: PolicySettings) -> str:
    if part is Part.PROMPT and action is Action.BLOCK:
        return "refused" if settings.prompt_block == "error" else "notice"
    return WORDS[action]


def _table(chosen: Chosen) -> Table:
    title = f"policy {chosen.policy.name}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("level", "category", *CHANNELS):
        table.add_column(column, no_wrap=column != "category")
    for level in LEVELS:
        rows: dict[tuple[str, ...], list[Category]] = {}
        for category in Category:
            each = (chosen.policy.of(part).action(category, level) for part in CHANNELS.values())
            words = (_word(one, part, chosen.settings) for one, part in zip(each, CHANNELS.values(), strict=True))
            rows.setdefault(tuple(words), []).append(category)
        most = max(rows.values(), key=len)
        for words_, categories in rows.items():
            all_of = "all" if len(rows) == 1 else "the rest"
            table.add_row(str(level), all_of if categories is most else ", ".join(categories), *words_)
    return table


def _more(chosen: Chosen) -> Iterator[str]:
    """What the table cannot show: how many tokens make a flag, and what may leave before it."""
    whole = chosen.policy
    yield f"{_run(whole)}."
    yield f"The prompt is judged {_when(chosen.settings)}."
    for part in whole.parts:
        if _run(whole.of(part)) != _run(whole):
            yield f"In {part}: {_run(whole.of(part))}."


def _run(policy: Policy) -> str:
    tokens = "One flagged token makes" if policy.debounce == 1 else f"{policy.debounce} flagged tokens in a row make"
    levels = "" if policy.debounce == 1 else f" ({policy.rule})"
    ahead = f"{policy.ahead} characters may leave before their verdict" if policy.ahead else "nothing leaves unjudged"
    return f"{tokens} a flag{levels}; {ahead if policy.holds else 'nothing is held for a verdict'}"


def _when(settings: PolicySettings) -> str:
    return "before the upstream is called" if settings.prompt_check == "before" else "while the upstream answers"


def _route(settings: Settings, policies: Policies, asked: Asked) -> dict[str, Any]:
    """What the rules make of the request. Raises ConfigError for names that there are not."""
    upstreams, keys = [one.name for one in settings.upstreams], [one.name for one in settings.auth.keys]
    for sort, given, known in (("upstream", asked.upstream, upstreams), ("key", asked.key, keys)):
        if given is not None and given not in known:
            raise ConfigError(f'There is no {sort} "{given}"; there are {", ".join(known) or "none"}.')
    route = asked.route or get_args(Route)[0]
    upstream = asked.upstream or _upstream_of(settings, asked.model)
    chosen = policies.choose(route, asked.model, upstream, asked.key or "")
    rules = [
        {"policy": rule.policy, "misfits": misfits(rule, route, asked.model, upstream, asked.key or "")}
        for rule in settings.rules
    ]
    request = {"route": route, "model": asked.model, "upstream": upstream, "key": asked.key}
    # Behind the rules that were written come those that upstreams say of themselves.
    is_written = chosen.rule is not None and chosen.rule < len(rules)
    return {
        "request": request,
        "policy": chosen.policy.name,
        "rule": chosen.rule + 1 if chosen.rule is not None and is_written else None,
        "by_upstream": chosen.rule is not None and not is_written,
        "rules": rules,
    }


def _upstream_of(settings: Settings, model: str | None) -> str:
    default = next((one.name for one in settings.upstreams if one.models is None), "")
    return next((one.name for one in settings.upstreams if model is not None and serves(one, model)), default)


def _said(route: Mapping[str, Any]) -> Iterator[str]:
    request = {name: value for name, value in route["request"].items() if value}
    yield "A request with " + ", ".join(f"{name} {value}" for name, value in request.items()) + ":"
    for number, rule in enumerate(route["rules"], 1):
        fits = f"does not fit in its {', '.join(rule['misfits'])}" if rule["misfits"] else "fits"
        yield f"  rule {number}, policy {rule['policy']}: {fits}"
    if "+" in route["policy"]:
        yield f"  gets {route['policy']}: without a model several may hold, and then all hold at once. Say --model."
    else:
        by_other = "its upstream" if route["by_upstream"] else "default"
        yield f"  gets policy {route['policy']}, by " + (f"rule {route['rule']}" if route["rule"] else by_other)


def _as_dict(policies: Policies, route: Mapping[str, Any]) -> dict[str, Any]:
    return {"policies": [_policy_dict(chosen) for chosen in policies.all], **route}


def _policy_dict(chosen: Chosen) -> dict[str, Any]:
    each = [asdict(outcome) for outcome in outcomes(chosen)]
    return {"name": chosen.policy.name, "about": list(_more(chosen)), "outcomes": each}
