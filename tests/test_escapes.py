"""JSON escapes as they stream: any cut, and the standard decoder agrees."""

import json

from hypothesis import given
from hypothesis import strategies as st

from proxy.escapes import EscapeDecoder


def decode(parts: list[str]) -> tuple[str, list[int]]:
    decoder = EscapeDecoder()
    found = [decoder.feed(part) for part in parts] + [decoder.finish()]
    return "".join(text for text, _ in found), [width for _, widths in found for width in widths]


def test_letters_behind_escapes_are_read() -> None:
    assert decode(['{"a":"\\u0062omb\\n"}'])[0] == '{"a":"bomb\n"}'


def test_a_double_backslash_escapes_nothing_after_it() -> None:
    assert decode(["\\\\u0062"])[0] == "\\u0062"


def test_a_wrong_or_cut_escape_stands_for_itself() -> None:
    assert decode(["\\x \\uZZ \\u00"])[0] == "\\x \\uZZ \\u00"


@given(st.text(st.sampled_from('\\u0062ndbX"/ '), max_size=30), st.data())
def test_any_cut_gives_the_same_text_and_widths(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    whole = decode([text])
    assert decode([text[:at], text[at:]]) == whole
    assert decode(list(text)) == whole
    assert sum(whole[1]) == len(text)
    assert len(whole[0]) == len(whole[1])


@given(st.text(max_size=20))
def test_json_strings_decode_as_the_json_module_does(text: str) -> None:
    inner = json.dumps(text)[1:-1]
    decoded, _ = decode(list(inner))
    assert decoded.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") == text
