"""Generated replies: everyday text, lists, code, many scripts, refusals, and texts that turn. By one seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.answers import (
    BENIGN_ANSWERS,
    CHINESE_ANSWERS,
    CHINESE_SUBJECTS,
    COMPLIANCE_OPENERS,
    NEUTRAL_PROMPTS,
    REFUSAL_OFFERS,
    REFUSAL_OPENERS,
    REFUSAL_REASONS,
    TURNING_LINES,
)
from training.vocabulary import ANSWER_FRAME, encode, turn

LONGEST_TOKENS = 160
NOUNS = ("garden", "river", "teacher", "bread", "letter", "engine", "doctor", "village", "ticket", "market", "holiday")
VERBS = ("found", "repaired", "painted", "carried", "forgot", "described", "opened", "borrowed", "cleaned", "promised")
PLACES = (
    "in the kitchen",
    "behind the school",
    "near the old bridge",
    "at the station",
    "by the sea",
    "over the hills",
)
# Everyday sentences, one or two a script: scripts themselves must not look like a risk, nor change the numbers.
SCRIPTS = (
    "Доброе утро! Сегодня хорошая погода, и мы идём в парк.",
    "صباح الخير، كيف حالك اليوم؟ الشاي جاهز على الطاولة.",
    "今日は天気がいいので、公園を散歩しましょう。お茶も用意します。",
    "오늘은 날씨가 좋아서 공원에 갑니다. 점심은 비빔밥이에요.",
    "नमस्ते, आज मौसम बहुत अच्छा है और हम बाज़ार जा रहे हैं।",
    "Καλημέρα σας, σήμερα θα πάμε στη θάλασσα με το τρένο.",
    "שלום, מה שלומך היום? אנחנו הולכים לשוק בבוקר.",
    "สวัสดีครับ วันนี้อากาศดีมาก เราไปตลาดกันเถอะ",
    "Chào buổi sáng, hôm nay trời đẹp, chúng ta đi chợ nhé.",
    "Guten Morgen! Übermorgen fährt Jürgen mit dem Zug nach Köln, süß.",
    "👍🏽 Great 🎉🎉 see you at 🕗 with 🍰 and ☕️!",
)


@dataclass(frozen=True, slots=True)
class Reply:
    prompt: list[int]
    answer: list[int]  # its frame included


def replies(count: int, seed: int = 0) -> list[Reply]:
    dice = random.Random(seed)
    prompts = [turn("user", text) for text in NEUTRAL_PROMPTS]
    makers = [everyday, everyday, listing, code, scripts, refusal, turning, turning, turning, chinese]
    return [Reply(dice.choice(prompts), _framed(dice.choice(makers)(dice), dice)) for _ in range(count)]


def _framed(text: str, dice: random.Random) -> list[int]:
    ids = encode(text)[: LONGEST_TOKENS - len(ANSWER_FRAME)]
    if dice.random() < 0.1:  # some are cut off in the middle, some go on without sense
        ids = ids[: dice.randint(1, len(ids))]
    return [*ANSWER_FRAME, *ids]


def sentence(dice: random.Random) -> str:
    noun, verb, other, place = dice.choice(NOUNS), dice.choice(VERBS), dice.choice(NOUNS), dice.choice(PLACES)
    return dice.choice(
        [
            f"The {noun} {verb} a {other} {place}.",
            f"My neighbour {verb} the {noun} {place} {dice.randint(2, 99)} years ago.",
            f"Why had nobody {verb} the {other} of the {noun}?",
            f"{place.capitalize()}, {dice.randint(2, 40)} {noun}s and one {other} were {verb}.",
        ]
    )


def everyday(dice: random.Random) -> str:
    begin = dice.choice([dice.choice(BENIGN_ANSWERS), dice.choice(COMPLIANCE_OPENERS), ""])
    return " ".join([begin, *(sentence(dice) for _ in range(dice.randint(1, 6)))]).strip()


def listing(dice: random.Random) -> str:
    mark: Callable[[int], str] = dice.choice([lambda n: f"{n}. ", lambda n: "- ", lambda n: f"| {n} | "])
    lines = [mark(number) + sentence(dice) for number in range(1, dice.randint(3, 7))]
    return "\n".join(["Of course:", "", *lines])


def code(dice: random.Random) -> str:
    name, value = dice.choice(NOUNS), dice.choice(NOUNS)
    return dice.choice(
        [
            f"```python\ndef {name}({value}: int) -> list[int]:\n    return [{value} * {dice.randint(2, 9)}] * 3\n```",
            f'```json\n{{"{name}": [{dice.randint(0, 999)}, {dice.random():.4f}], "{value}": null}}\n```',
            f"SELECT {name}, COUNT(*) FROM {value}s WHERE id > {dice.randint(1, 99)} GROUP BY 1;",
            f"for f in *.{name}; do kill -9 $(pgrep {value}); done  # stops the {value}",
        ]
    ) + "\n" + sentence(dice)  # fmt: skip


def scripts(dice: random.Random) -> str:
    return " ".join(dice.choice(SCRIPTS) for _ in range(dice.randint(1, 3)))


def chinese(dice: random.Random) -> str:
    return dice.choice(CHINESE_ANSWERS).format(dice.choice(CHINESE_SUBJECTS))


def refusal(dice: random.Random) -> str:
    return " ".join([dice.choice(REFUSAL_OPENERS), dice.choice(REFUSAL_REASONS), dice.choice(REFUSAL_OFFERS)])


def turning(dice: random.Random) -> str:
    """Harmless at first; some turn twice, some go back to harmless."""
    parts = [sentence(dice) for _ in range(dice.randint(0, 4))]
    parts += [dice.choice(dice.choice(list(TURNING_LINES.values()))) for _ in range(dice.randint(1, 2))]
    return " ".join([*parts, *(sentence(dice) for _ in range(dice.randint(0, 2)))])
