"""The words that guard and policy share: risk levels, categories, and the risk of one token.

Labels and class order are those of the released Qwen3Guard-Stream checkpoints.
"""

from enum import StrEnum
from typing import Final, final


class RiskLevel(StrEnum):
    SAFE = "Safe"
    UNSAFE = "Unsafe"
    CONTROVERSIAL = "Controversial"


class Category(StrEnum):
    VIOLENT = "Violent"
    SEXUAL_CONTENT = "Sexual Content"
    SELF_HARM = "Self-Harm"
    POLITICAL = "Political"
    PII = "PII"
    COPYRIGHT = "Copyright"
    ILLEGAL_ACTS = "Illegal Acts"
    UNETHICAL = "Unethical"
    JAILBREAK = "Jailbreak"


# Row i of a classification head is class i of these.
RISK_LEVELS: tuple[RiskLevel, ...] = (RiskLevel.SAFE, RiskLevel.UNSAFE, RiskLevel.CONTROVERSIAL)
PROMPT_CATEGORIES: tuple[Category, ...] = tuple(Category)
RESPONSE_CATEGORIES: tuple[Category, ...] = PROMPT_CATEGORIES[:8]  # no Jailbreak in an answer

# Safe < Controversial < Unsafe: the order for "worst of".
SEVERITY: dict[RiskLevel, int] = {RiskLevel.SAFE: 0, RiskLevel.CONTROVERSIAL: 1, RiskLevel.UNSAFE: 2}


class Role(StrEnum):
    """Which twin of the classification heads reads a token."""

    USER = "user"
    ASSISTANT = "assistant"


@final
class Risk:
    """What the guard says of one token.

    `levels` are the softmax probabilities in the order of `RISK_LEVELS`; `categories` those of
    `PROMPT_CATEGORIES` (9, a user token) or `RESPONSE_CATEGORIES` (8, an assistant token).
    `category` is the most probable one; it means something only where `level` is not Safe.
    """

    __slots__ = ("categories", "category", "category_probability", "level", "levels", "probability")

    def __init__(
        self,
        level: RiskLevel,
        category: Category,
        probability: float,
        category_probability: float,
        levels: tuple[float, ...],
        categories: tuple[float, ...],
    ) -> None:
        self.level: Final = level
        self.category: Final = category
        self.probability: Final = probability  # of `level`, in [0, 1]
        self.category_probability: Final = category_probability  # of `category`, in [0, 1]
        self.levels: Final = levels
        self.categories: Final = categories

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Risk) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"Risk{self._values()}"

    def _values(self) -> tuple[object, ...]:
        return (
            self.level,
            self.category,
            self.probability,
            self.category_probability,
            self.levels,
            self.categories,
        )
