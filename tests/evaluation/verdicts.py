"""Builders of judged items: verdicts as letters."""

from proxy.evaluation.datasets import Item, Span
from proxy.evaluation.run import Answer, Judged
from proxy.risk import RISK_LEVELS, RiskLevel, Role
from tests.fakes import risk

LETTERS = {str(level)[0]: number for number, level in enumerate(RISK_LEVELS)}
SECRET = "words of the answer"


def answered(levels: str, label: RiskLevel, answer: str = SECRET, span: Span | None = None) -> Judged:
    messages = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer})
    harms = [0.1 if letter == "S" else 0.9 for letter in levels]
    verdicts = Answer(10, bytes(LETTERS[letter] for letter in levels), harms, span)
    return Judged(Item("data.jsonl", 3, messages, answer_risk=label), None, verdicts, tokens=20)


def asked(level: RiskLevel, label: RiskLevel) -> Judged:
    item = Item("data.jsonl", 4, ({"role": "user", "content": "Hi"},), prompt_risk=label)
    return Judged(item, risk(level, role=Role.USER), tokens=6)
