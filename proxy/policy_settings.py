"""`[policy]`, `[policies.*]` and `[[rules]]`: what a risk leads to, and for whom."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from proxy.policy import Part
from proxy.risk import Category
from proxy.setting_types import Count, Line, Section, ShortName, Some

Mode = Literal["loose", "strict"]
OnFlag = Literal["block", "annotate", "monitor"]
CategoryAction = Literal["block", "annotate", "allow"]
DebounceRule = Literal["same-level", "any-level"]
Level = Literal["Controversial", "Unsafe"]
Release = Literal["hold", "window"]
ToolCalls = Literal["whole", "parts"]
PromptCheck = Literal["parallel", "before"]
PromptBlock = Literal["error", "answer"]
Route = Literal[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/moderations",
    "/beta/litellm_basic_guardrail_api",
]


class JudgingSettings(Section):
    """What a risk of one sort of text leads to; what is not said is as the policy has it."""

    mode: Mode = "loose"
    """strict: Controversial counts as Unsafe."""
    on_flag: OnFlag = "block"
    """block: end the answer; annotate: mark it; monitor: only record."""
    debounce: Annotated[Count, Field(ge=1, le=8)] = 2
    """How many flagged tokens in a row make a flag."""
    debounce_rule: DebounceRule = "same-level"
    """same-level: a run is of one level, as in the published evaluation; any-level: as in the paper."""
    categories: dict[Category, CategoryAction] = Field(default_factory=dict)
    """What to do for a category instead of on_flag, such as "Sexual Content" = "allow"."""
    levels: dict[Level, CategoryAction] = Field(default_factory=dict)
    """What to do for a level instead of on_flag, such as Controversial = "annotate"; it then counts in either mode."""
    release: Release = "hold"
    """hold: no character leaves before its verdict; window: a few may."""
    window: Annotated[Count, Field(ge=0, le=100_000)] = 0
    """With release = "window": the most characters ahead of the verdicts."""

    @field_validator("categories", mode="before")
    @classmethod
    def _name_categories(cls, value: object) -> object:
        return _by_category(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _check_window(self) -> "JudgingSettings":
        if self.release == "window" and self.window == 0:
            raise ValueError('release = "window" needs a window above 0: the characters that may leave unjudged')
        if self.release == "hold" and self.window > 0:
            raise ValueError('window is set, but only release = "window" uses it')
        return self

    @field_validator("levels", mode="before")
    @classmethod
    def _name_levels(cls, value: object) -> object:
        return {level_name(str(name)): one for name, one in value.items()} if isinstance(value, Mapping) else value


class PolicySettings(JudgingSettings):
    """What a risk leads to."""

    name: ShortName = "default"
    """Named in headers and records."""
    tool_calls: ToolCalls = "whole"
    """whole: a call leaves when all of it is judged; parts: as it comes, and agents may run what a cut left of one."""
    prompt_check: PromptCheck = "parallel"
    """parallel: judge the prompt while the upstream answers; before: call it only after the verdict."""
    prompt_block: PromptBlock = "error"
    """What a flagged prompt gets. error: HTTP 400; answer: a normal answer that says prompt_notice."""
    notice: Annotated[str, Field(max_length=1000)] = "\n\n[This answer was stopped by a safety policy.]"
    """What is said behind the text of an answer that was cut; "" for nothing."""
    prompt_notice: Annotated[str, Field(max_length=1000)] = "This request was stopped by a safety policy."
    """What the sender of a flagged prompt is told."""
    allow_unscanned: bool = False
    """Let images and audio, which no one can judge, through with a label instead of refusing them."""
    allow_stored: bool = False
    """Let the upstream keep answers and conversations, which can be read and continued without being judged."""
    annotations: tuple[Literal["weir", "openai", "azure"], ...] | None = None
    """Notations of answers under this policy instead of those of [annotations]; [] for none."""
    record_content: bool | None = None
    """Keep what was said in the records: prompts and answers; unset, [records] content decides."""
    trace_content: bool | None = None
    """Tell what was said in traces: prompts and answers; unset, [telemetry] content decides."""
    channels: dict[Part, JudgingSettings] = Field(default_factory=dict)
    """Where one sort of text is judged otherwise, such as [policy.channels.reasoning] on_flag = "annotate"."""


class RuleSettings(Section):
    """Requests that fit every line of it get its policy. What a line lists are alternatives."""

    policy: ShortName
    """A table of [policies], or the name of [policy] itself."""
    routes: Some[Route] | None = None
    """Paths that clients call."""
    models: Some[Line] | None = None
    """Models as clients name them, whatever their case; * stands for any characters."""
    upstreams: Some[Line] | None = None
    """Names of upstreams."""
    keys: Some[Line] | None = None
    """Names of API keys of ours."""


def category_slug(name: str) -> str:
    """`Sexual Content`, `sexual_content` and `SEXUAL-CONTENT` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


CATEGORY_OF_SLUG: dict[str, Category] = {category_slug(category): category for category in Category}


def _by_category(value: Mapping[Any, Any]) -> dict[Any, Any]:
    named: dict[Any, Any] = {}
    for name, action in value.items():
        category = CATEGORY_OF_SLUG.get(category_slug(str(name)), name)
        if category in named:
            raise ValueError(f'names the category "{category}" twice')
        named[category] = action
    return named


def level_name(name: str) -> str:
    """`Unsafe` however it is capitalised, as variables are."""
    return name.capitalize()
