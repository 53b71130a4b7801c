"""What one training example is, before it becomes ids."""

from dataclasses import dataclass

from proxy.risk import Category, RiskLevel

# How much more a false alarm costs where people ask for nothing unusual.
EVERYDAY_ALARM = 4.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of an answer under one label."""

    text: str
    risk: RiskLevel
    category: Category | None = None
    is_short: bool = False  # the whole stretch deserves its label: do not wait for evidence


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt, its label where it has one, and an answer in labelled stretches where it has one."""

    source: str
    prompt: str
    prompt_risk: RiskLevel | None = None
    prompt_category: Category | None = None
    answer: tuple[Stretch, ...] = ()
    weight: float = 1.0
    alarm: float = 0.0  # what a safe token adds to its weight when it looks quite unsafe

    @property
    def answer_text(self) -> str:
        return "".join(stretch.text for stretch in self.answer)

    @property
    def answer_risk(self) -> RiskLevel | None:
        return self.answer[-1].risk if self.answer else None
