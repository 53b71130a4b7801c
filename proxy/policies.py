"""Which policy a request gets: the first rule that fits it, else `[policy]`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import reduce

from proxy.policy import Action, DebounceRule, Mode, Part, Policy, ReleaseMode
from proxy.policy_settings import JudgingSettings, PolicySettings, RuleSettings
from proxy.request_fields import ModeratedRequest
from proxy.risk import RiskLevel
from proxy.settings import Settings


@dataclass(frozen=True, slots=True)
class Chosen:
    """What holds for one request, from its beginning to its end."""

    settings: PolicySettings
    policy: Policy
    rule: int | None = None  # the rule that chose it, from 0; None for [policy]

    def keeps_text(self, settings: Settings) -> bool:
        """In the records."""
        wanted = self.settings.record_content
        return settings.records.content if wanted is None else wanted

    def tells_text(self, settings: Settings) -> bool:
        """In traces."""
        wanted = self.settings.trace_content
        return settings.telemetry.content if wanted is None else wanted

    def joined(self, other: "Chosen") -> "Chosen":
        """Both policies at once. What is said is as this one says it, what is allowed is what both allow."""
        allowed: dict[str, bool | None] = {
            name: getattr(self.settings, name) and getattr(other.settings, name)
            for name in ("allow_stored", "allow_unscanned")
        }
        # Text is kept or told where nobody forbids it and both ask for it, be it through the general setting.
        for name in ("record_content", "trace_content"):
            wanted = {getattr(one.settings, name) for one in (self, other)}
            allowed[name] = False if False in wanted else True if wanted == {True} else None
        before = "before" in (self.settings.prompt_check, other.settings.prompt_check)
        both = self.settings.model_copy(update={**allowed, "prompt_check": "before" if before else "parallel"})
        return replace(self, settings=both, policy=self.policy.joined(other.policy))


class Policies:
    """The policies and rules of one reading of the settings."""

    def __init__(self, settings: Settings) -> None:
        all_of = [settings.policy, *settings.policies.values()]
        self._chosen = {one.name: Chosen(one, policy_of(one)) for one in all_of}
        # What an upstream says of itself is a rule behind all that were written.
        own = (RuleSettings(policy=one.policy, upstreams=(one.name,)) for one in settings.upstreams if one.policy)
        self._rules = (*settings.rules, *own)
        self.all = tuple(self._chosen.values())
        self.default = self._chosen[settings.policy.name]

    def choose(
        self, route: str, model: str | None, upstream: str = "", key: str = "", wishes: Sequence[str] = ()
    ) -> Chosen:
        """`route` as it is served, `model` as the client names it, the names of the upstream and of the API key.

        Where nobody knows the model, all policies hold at once to which one could lead. `wishes` are names of policies
        that the client asks for: they hold beside the chosen one, so they can only add to what is held back.
        Raises KeyError for a wish that names no policy.
        """
        possible: dict[str, Chosen] = {}
        for number, rule in enumerate(self._rules):
            if not misfits(rule, route, model, upstream, key):
                possible.setdefault(rule.policy, replace(self._chosen[rule.policy], rule=number))
                if model is not None or rule.models is None:
                    break
        else:
            possible.setdefault(self.default.policy.name, self.default)
        for name in wishes:
            possible.setdefault(name, self._chosen[name])
        return reduce(Chosen.joined, possible.values())


def misfits(rule: RuleSettings, route: str, model: str | None, upstream: str, key: str) -> list[str]:
    """The lines of a rule that a request does not fit; a model that nobody knows fits any."""
    exact = {"routes": (rule.routes, route), "upstreams": (rule.upstreams, upstream), "keys": (rule.keys, key)}
    found = [line for line, (wanted, given) in exact.items() if wanted is not None and given not in wanted]
    if rule.models is not None and model is not None and not any(_is_model(model, glob) for glob in rule.models):
        found.append("models")
    return found


def _is_model(model: str, glob: str) -> bool:
    # Some upstreams read names without regard to case or spaces around: neither may lead to a laxer policy.
    return fnmatchcase(model.strip().lower(), glob.lower())


def policy_of(settings: PolicySettings) -> Policy:
    parts = {part: _policy(settings.name, judging) for part, judging in settings.channels.items()}
    return replace(_policy(settings.name, settings), parts=parts, whole_calls=settings.tool_calls == "whole")


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


def sides_of(policy: Policy, request: ModeratedRequest) -> tuple[Policy, Policy]:
    """The prompt's policy and the answer's. A client's own wish may only tighten them."""
    if request.moderation is None:
        return policy.of(Part.PROMPT), policy
    at_least = {"score": Action.ANNOTATE, "block": Action.BLOCK}
    sides = (request.moderation.input, request.moderation.output)
    prompt, answer = (policy.tightened(at_least[side or "score"]) for side in sides)
    return prompt.of(Part.PROMPT), answer
