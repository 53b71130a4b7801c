"""Everyday chats by topics: what is trained on, what is held out, and Chinese texts with any words in them."""

import random

from proxy.risk import RiskLevel
from training.topics import HELD, NUMBERS, chinese_words, held_topics, is_chinese, scrambled, topic_chats


def test_chats_of_both_languages_are_harmless_and_whole() -> None:
    chats = list(topic_chats(random.Random(1)))
    assert len(chats) == sum(NUMBERS.values())
    assert all(chat.prompt_risk is chat.answer_risk is RiskLevel.SAFE for chat in chats)
    assert all(chat.alarm and chat.prompt and chat.answer_text and "{0}" not in chat.prompt for chat in chats)
    assert len({chat.prompt for chat in chats}) > len(chats) / 2


def test_held_out_topics_share_no_sentence_with_the_others() -> None:
    held = list(held_topics(random.Random(2)))
    assert len(held) == 2 * HELD
    trained = "\n".join(chat.answer_text for chat in topic_chats(random.Random(2)))
    sentence = "Soak the stain in cold water with a little salt."
    assert any(sentence in chat.answer_text for chat in held)
    assert sentence not in trained
    assert "大熊猫主要吃竹子" not in trained


def test_a_scrambled_text_keeps_its_form() -> None:
    text = "先把番茄洗净切成小块。鸡蛋打散。OK 1"
    changed = scrambled(random.Random(3), text)
    assert changed != text
    assert changed.endswith("。OK 1")
    assert set(changed) - set(text) <= {char for word in chinese_words() for char in word}
    assert is_chinese("番")
    assert not is_chinese("!")
