# ruff: noqa: RUF001 - letters that look alike are the point of these texts.
"""Folding as it streams: what is read over, look-alikes, widths, any cut, and what stays as it is."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.folding import LATIN_FORMS, LOOKALIKES, MAX_DROPPED, MAX_WORD, RESEMBLING, Folder, fold


def fold_parts(parts: list[str]) -> tuple[str, list[int], int]:
    folder = Folder()
    found = [folder.feed(part) for part in parts] + [folder.finish()]
    widths = [width for _, widths in found for width in widths]
    return "".join(text for text, _ in found), widths, folder.trailing


def folded(text: str) -> str:
    return fold(text)


def tagged(text: str) -> str:
    return "".join(chr(0xE0000 + ord(char)) for char in text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bo\u200bmb", "bomb"),  # zero width space
        ("b\u00ado\u00adm\u00adb", "bomb"),  # soft hyphen
        ("b\u2060o\ufeffm\u200d\u200cb", "bomb"),
        ("bo\ufe00m\ufe0fb\U000e0155", "bomb"),  # variation selectors
        ("bomb" + tagged("hidden") + "s", "bombs"),
        ("\u202ebomb\u202c!", "bomb!"),  # bidi controls
        ("ｂｏｍｂ", "bomb"),
        ("𝐛𝑜𝓶𝖇 𝟷𝟸", "bomb 12"),
        ("ⓑⓞⓜⓑ 🅑🅾🅜🅱 ᴋɪʟʟ", "bomb BOMB kill"),
        ("b\u043emb", "bomb"),  # a Cyrillic o
        ("\u0430tt\u0430ck", "attack"),  # at the start of the word
        ("the b\u03bfmb", "the bomb"),  # a Greek o
        ("make \u0440\u0443\u0440\u0435", "make pype"),  # look-alikes alone, behind Latin
        ("ki\u217c\u217c", "kill"),  # Roman numerals
        ("ﬁre", "fire"),
        ("wea\u043fon", "weanon"),  # not the letter that was meant, but Latin all the same
    ],
)
def test_what_readers_read_over_is_folded(text: str, expected: str) -> None:
    assert folded(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "plain ASCII, 100% of it: x_1 = 'a'",
        "Größe, çé, naïve, Zażółć, İstanbul",
        "Привет, как дела? Он сам всё это делал, а оно росло.",
        "Η θάλασσα ήταν ήρεμη και ο ήλιος έδυε.",
        "我们“今天”去公园，好吗？（是的！）　用WiFi",
        "昨日は雨。カタカナ",
        "오늘은 날씨가 ㅋㅋㅋ 좋아서",
        "हम देर से स्कूल पहुँचे। ได้ ذهبنا إلى",
        "👍🏽 👩‍👩‍👧 🏳️‍🌈 ❤️‍🔥 1️⃣ © → …",
    ],
)
def test_honest_text_is_its_own_folded_view(text: str) -> None:
    folder = Folder()
    assert folder.feed(text)[0] + folder.finish()[0] == text
    assert not folder.has_changed


def test_widths_count_source_characters() -> None:
    assert fold_parts(["a\u200b\u200bb"]) == ("ab", [1, 3], 0)
    assert fold_parts(["ﬁx"]) == ("fix", [0, 1, 1], 0)
    assert fold_parts(["a\u200b"]) == ("a", [1], 1)


def test_a_flood_of_invisible_characters_is_not_waited_for() -> None:
    folder = Folder()
    text, widths = folder.feed("a" + "\u200b" * (3 * MAX_DROPPED))
    assert len(text) == 3
    assert sum(widths) + folder.trailing == 1 + 3 * MAX_DROPPED
    assert folder.trailing <= MAX_DROPPED


def test_a_flood_of_look_alikes_is_not_waited_for() -> None:
    assert len(Folder().feed("\u043e" * (MAX_WORD + 10))[0]) == MAX_WORD + 10


def test_peek_tells_what_finish_would_return() -> None:
    folder = Folder()
    assert folder.feed("a \u043e\u0440") == ("a ", [1, 1])
    assert folder.peek() == ("op", [1, 1])
    assert folder.feed("ж") == ("\u043e\u0440ж", [1, 1, 1])  # the word was a Cyrillic one after all
    assert folder.peek() == ("", [])


ALPHABET = st.sampled_from("abZ19 .-_'\nоаркжЖπο中ㅋéｂ𝐛ﬁⅷ½ᴋ🅱\u200b\u200d\ufe0f\u00ad\u0301\U000e0062👍🏽©=1")


@given(st.lists(ALPHABET, max_size=24).map("".join), st.data())
def test_any_cut_gives_the_same(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    whole = fold_parts([text])
    assert fold_parts([text[:at], text[at:]]) == whole
    assert fold_parts(list(text)) == whole


@given(st.one_of(st.lists(ALPHABET, max_size=24).map("".join), st.text(max_size=24)))
def test_widths_cover_the_source(text: str) -> None:
    result, widths, trailing = fold_parts([text])
    assert len(result) == len(widths)
    assert sum(widths) + trailing == len(text)


@given(st.lists(ALPHABET, max_size=24).map("".join), st.data())
def test_peek_at_any_place_is_finish_there(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    folder = Folder()
    before = folder.feed(text[:at])[0]
    assert before + folder.peek()[0] == folded(text[:at])


@given(st.text(max_size=24))
def test_a_text_is_changed_when_it_says_so(text: str) -> None:
    folder = Folder()
    result = folder.feed(text)[0] + folder.finish()[0]
    assert folder.has_changed or result == text


def test_the_tables_hold_other_letters_that_become_ascii_ones() -> None:
    for table in (LATIN_FORMS, LOOKALIKES, RESEMBLING):
        assert all(letter.isascii() and letter.isalnum() for letter in table.values())
        assert not any(char.isascii() for char in table)
    assert all(unicodedata.normalize("NFKC", char) == char for char in LOOKALIKES if char not in "\u03f2\u03f9")
    assert not LOOKALIKES.keys() & RESEMBLING.keys()
