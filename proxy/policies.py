"""Which policy a request gets: the first rule that fits it, else `[policy]`."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from proxy.policy import Action, DebounceRule, Mode, Policy, ReleaseMode
from proxy.policy_settings import JudgingSettings, PolicySettings, RuleSettings
from proxy.risk import RiskLevel
from proxy.settings import Settings


@dataclass(frozen=True, slots=True)
class Chosen:
    """What holds for one request, from its beginning to its end."""

    settings: PolicySettings
    policy: Policy
    rule: int | None = None  # the rule that chose it, from 0; None for [policy]


class Policies:
    """The policies and rules of one reading of the settings."""

    def __init__(self, settings: Settings) -> None:
        all_of = [settings.policy, *settings.policies.values()]
        self._chosen = {one.name: Chosen(one, policy_of(one)) for one in all_of}
        self._rules = settings.rules
        self.default = self._chosen[settings.policy.name]

    def choose(self, route: str, model: str, upstream: str = "", key: str = "") -> Chosen:
        """`route` as it is served, `model` as the client names it, the names of the upstream and of the API key."""
        for number, rule in enumerate(self._rules):
            if _fits(rule, route, model, upstream, key):
                found = self._chosen[rule.policy]
                return Chosen(found.settings, found.policy, number)
        return self.default


def _fits(rule: RuleSettings, route: str, model: str, upstream: str, key: str) -> bool:
    exact = ((rule.routes, route), (rule.upstreams, upstream), (rule.keys, key))
    if not all(wanted is None or given in wanted for wanted, given in exact):
        return False
    return rule.models is None or any(_is_model(model, glob) for glob in rule.models)


def _is_model(model: str, glob: str) -> bool:
    # Some upstreams read names without regard to case or spaces around: neither may lead to a laxer policy.
    return fnmatchcase(model.strip().lower(), glob.lower())


def policy_of(settings: PolicySettings) -> Policy:
    parts = {part: _policy(settings.name, judging) for part, judging in settings.channels.items()}
    return replace(_policy(settings.name, settings), parts=parts)


def _policy(name: str, settings: JudgingSettings) -> Policy:
    return Policy(
        name=name,
        mode=Mode(settings.mode),
        on_flag=Action(settings.on_flag),
        debounce=settings.debounce,
        rule=DebounceRule(settings.debounce_rule),
        categories={category: Action(action) for category, action in settings.categories.items()},
        levels={RiskLevel(level): Action(action) for level, action in settings.levels.items()},
        release=ReleaseMode(settings.release),
        window=settings.window,
    )
