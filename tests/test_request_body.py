"""Only what every JSON reader understands alike is accepted, and that is what goes upstream."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.request_body import (
    MAX_KEY_CHARS,
    BadRequest,
    check_headers,
    dump,
    read_object,
)
from proxy.server_settings import ServerSettings

LIMITS = ServerSettings(max_messages=8, max_choices=4, max_json_depth=16)


def read(raw: bytes | str, max_depth: int = LIMITS.max_json_depth) -> dict[str, Any]:
    return read_object(raw if isinstance(raw, bytes) else raw.encode(), max_depth=max_depth)


# Headers


@pytest.mark.parametrize(
    ("content_type", "content_encoding"),
    [
        ("application/json", None),
        ("application/json", "identity"),
        ("Application/JSON; charset=utf-8", ""),
        ('application/json;charset="UTF-8"', "Identity"),
        ("application/json; charset=utf8; profile=x", None),
    ],
)
def test_json_in_utf_8_is_read(content_type: str, content_encoding: str | None) -> None:
    check_headers(content_type, content_encoding)


@pytest.mark.parametrize(
    ("content_type", "content_encoding", "code"),
    [
        (None, None, "unsupported_media_type"),
        ("", None, "unsupported_media_type"),
        ("text/plain", None, "unsupported_media_type"),
        ("text/json", None, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", None, "unsupported_media_type"),
        ("multipart/form-data; boundary=x", None, "unsupported_media_type"),
        ("application/json, text/plain", None, "unsupported_media_type"),
        ("application/jsonl", None, "unsupported_media_type"),
        ("application/json; charset=utf-16", None, "unsupported_charset"),
        ("application/json; charset=utf-7", None, "unsupported_charset"),
        ("application/json; charset=latin-1", None, "unsupported_charset"),
        ("application/json; charset=", None, "unsupported_charset"),
        ("application/json; charset=utf-8; charset=utf-16", None, "unsupported_charset"),
        ("application/json", "gzip", "unsupported_content_encoding"),
        ("application/json", "deflate", "unsupported_content_encoding"),
        ("application/json", "br", "unsupported_content_encoding"),
        ("application/json", "zstd", "unsupported_content_encoding"),
        ("application/json", "identity, gzip", "unsupported_content_encoding"),
    ],
)
def test_every_other_type_charset_and_encoding_is_a_415(
    content_type: str | None, content_encoding: str | None, code: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        check_headers(content_type, content_encoding)
    assert (caught.value.status, caught.value.code) == (415, code)


# Bytes -> object: cases in the manner of JSONTestSuite, as values of one key and as whole bodies

GOOD_VALUES = [
    "null", "true", "false", "0", "-0", "1", "-1", "123456789", "1e0", "1E+2", "1e-2", "-1.5", "0.1", "-0.0", "1.0",
    "9007199254740993", "9223372036854775808", "18446744073709551616", "1" * 400, "1e308", "1e-400", "5e-324",
    '""', '"a"', r'"\"\\\/\b\f\n\r\t"', r'"\u0061"', r'"\u0000"', r'"\ud83d\ude00"', r'"\uD83D\uDE00"', '"\x7f"',
    '"é"', '"日本"', '"😀"', '"\u2028\u2029"', '"\ufeff"', '"\ufffd"', r'"\uffff"', r'"\u005Cu"', r'"\\ud800"',
    "[]", "[1,2]", "[[]]", "[null, true]", "{}", '{"":0}', '{"a":{"a":{}}}', "[ ]", "{ }", "[1 ,\t2\r\n]", '" "',
]  # fmt: skip
BAD_VALUES = [
    "", "nul", "True", "NULL", "undefined", "NaN", "-NaN", "nan", "Infinity", "-Infinity", "+Infinity", "inf",
    "1e400", "-1e400", "1" * 400 + ".0", "+1", "01", "-01", "00", "1.", ".1", "-.1", "1e", "1e+", "1.e1", "--1", "- 1",
    "0x1", "0b1", "1_000", "1,", "\uff11", "1 2", "1a", "'a'", '"', '"a', 'a"', '"\n"', '"\t"', '"\x00"', '"\x1f"',
    r'"\x61"', r'"\a"', r'"\u"', r'"\u12"', r'"\u 123"', r'"\u12g4"', r'"\U00000061"', '"\\', r'"\ud800"',
    r'"\udc00"', r'"\udc00\ud800"', r'"\ud800\ud800"', r'"\ud800a"', r'"a\udfff"', r'"\ud83d\u0061"', r'["\ud800"]',
    r'{"\ud800":1}', r'{"a":["b",{"c":"\udabc"}]}', "[", "]", "[1", "[1,", "[,1]", "[1,]", "[1 2]", "[1,,2]",
    "{", "}", '{"a"', '{"a":', '{"a":1', '{"a":1,}', "{,}", '{a:1}', "{'a':1}", '{1:1}', '{"a" 1}', '{"a":1 "b":2}',
    '{"a"::1}', '{"a":1:2}', "[}", "{]", "// x\n1", "/* x */1", "1 // x", "1 #x", "\ufeff1", "\xa01", "\x0c1",
    "\u20281",
    '{"a":1,"a":1}', '{"a":1,"a":2}', r'{"a":1,"\u0061":2}', '[{"b":{"a":[],"a":[]}}]', '{"":1,"":1}',
]  # fmt: skip


@pytest.mark.parametrize("value", GOOD_VALUES)
def test_good_json_is_read_and_written_as_the_same_value(value: str) -> None:
    body = read(f'{{"x":{value}}}')
    assert body == {"x": json.loads(value)}
    again = json.loads(dump(body))
    assert again == body
    assert type(again["x"]) is type(body["x"])


@pytest.mark.parametrize("value", BAD_VALUES)
def test_bad_json_is_refused(value: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(f'{{"x":{value}}}')
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"null", b"1", b'"a"', b"[]", b"[{}]", b"true", b"{}{}", b"{} x", b"{}\x00", b"\x00{}",
        b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"\xfe\xff\x00{\x00}", "{}".encode("utf-32"),
        b'{"x":"\xff"}', b'{"x":"\xc0\xaf"}',
        b'{"x":"\xed\xa0\x80"}', b'{"x":"\xe9"}', b'{"x":"\xf4\x90\x80\x80"}', b'{"x":"\xe2\x82"}', b"+ADw-x+AD4-",
        b"\xc2\xa0{}",
    ],
)  # fmt: skip
def test_a_body_that_is_no_object_in_utf_8_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read(raw)
    assert caught.value.status == 400


FIRST, SECOND = '{"role":"user","content":"safe"}', '{"role":"user","content":"unsafe"}'
DUPLICATES = [
    f'{{"model":"m","messages":[{FIRST}],"messages":[{SECOND}]}}',
    rf'{{"model":"m","messages":[{FIRST}],"mess\u0061ges":[{SECOND}]}}',
    rf'{{"model":"m","messages":[{FIRST}],"\u006d\u0065\u0073\u0073\u0061\u0067\u0065\u0073":[{SECOND}]}}',
    *[
        f'{{"model":"m","messages":[{{"role":"user","content":"a"}}],"{name}":{one},"{again}":{two}}}'
        for name, one, two in [
            ("stream", "true", "false"),
            ("n", "1", "2"),
            ("tools", "[]", "null"),
            ("store", "false", "true"),
            ("moderation", "null", "{}"),
            ("stream_options", "null", "{}"),
            ("temperature", "1", "1"),
        ]
        for again in (name, name[:1] + rf"\u{ord(name[1]):04x}" + name[2:] if len(name) > 1 else r"\u006e")
    ],
    *[
        f'{{"model":"m","messages":[{{{fields}}}]}}'
        for fields in [
            '"role":"user","role":"system","content":"a"',
            r'"role":"user","\u0072ole":"system","content":"a"',
            '"role":"user","content":"a","content":"b"',
            r'"role":"user","content":"a","\u0063ontent":"b"',
            r'"role":"user","c\u006fntent":"a","cont\u0065nt":"b"',
            '"role":"user","content":[{"type":"text","text":"a","text":"b"}]',
            r'"role":"user","content":[{"type":"text","text":"a","t\u0065xt":"b"}]',
            '"role":"user","content":[{"type":"text","type":"image_url","text":"a"}]',
            '"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","name":"g"}}]',
            '"role":"assistant","tool_calls":[{"id":"1","function":{"arguments":"{}","arguments":"[]"}}]',
            '"role":"user","content":"a","name":"x","name":"x"',
            '"role":"user","content":"a","x":{"y":{"z":1,"z":1}}',
        ]
    ],
]


@pytest.mark.parametrize("raw", DUPLICATES, ids=range(len(DUPLICATES)))
def test_a_key_given_twice_is_refused_wherever_it_is_and_however_it_is_spelt(raw: str) -> None:
    assert json.loads(raw)["messages"]  # Python's own reader takes the last one
    with pytest.raises(BadRequest, match="same key twice"):
        read(raw)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_counted_in_lists_and_objects(opening: str) -> None:
    def nested(depth: int) -> str:
        closing = "]" if opening == "[" else "}"
        inside = "1" if opening == "[" else "{}"  # the innermost object counts as well
        levels = depth - 1 if opening == "[" else depth - 2
        return '{"x":' + opening * levels + inside + closing * levels + "}"

    assert read(nested(5), max_depth=5)
    with pytest.raises(BadRequest, match="deeper than 5 levels"):
        read(nested(6), max_depth=5)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_depth_beyond_any_stack_is_refused(opening: str) -> None:
    for raw in (opening * 100_000, '{"x":' + opening * 100_000):
        with pytest.raises(BadRequest) as caught:
            read(raw)
        assert caught.value.status == 400


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_of_5000_digits_is_refused(sign: str) -> None:
    with pytest.raises(BadRequest, match="too many digits"):
        read('{"seed":' + sign + "9" * 5000 + "}")


@pytest.mark.parametrize("item", ["[]", '{"a":1}', "0", '""'])
def test_a_million_values_are_refused(item: str) -> None:
    with pytest.raises(BadRequest, match=r"more than 200000 values|more than 400000 brackets"):
        read('{"x":[' + f"{item}," * 1_000_000 + "0]}")


def test_a_key_of_a_megabyte_is_refused() -> None:
    assert read(json.dumps({"k" * MAX_KEY_CHARS: 1}))
    for body in ({"k" * (MAX_KEY_CHARS + 1): 1}, {"a": [{"k" * (1 << 20): 1}]}):
        with pytest.raises(BadRequest, match="key of more than"):
            read(json.dumps(body))


@pytest.mark.parametrize("lexeme", ["9223372036854775808", "18446744073709551616", "1.0", "1e0", "-0", "0.1", "1E400"])
def test_a_number_keeps_its_value(lexeme: str) -> None:
    if lexeme == "1E400":
        with pytest.raises(BadRequest, match="too large"):
            read(f'{{"seed":{lexeme}}}')
        return
    sent = json.loads(dump(read(f'{{"seed":{lexeme}}}')), parse_float=str, parse_int=str)["seed"]
    assert float(sent) == float(lexeme)
    assert sent == lexeme or lexeme in ("1e0", "-0")


def test_the_message_repeats_nothing_of_the_body() -> None:
    for raw in ('{"canary":canary}', '{"canary":1,"canary":2}', r'{"canary":"canary\ud800"}', '["canary"]', "canary"):
        with pytest.raises(BadRequest) as caught:
            read(raw)
        assert "canary" not in f"{caught.value} {caught.value.message}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FRAGMENTS = st.sampled_from(
    [
        '{"a":', "[", "]", "}", ",", ":", '"', '"a"', "\\", r"\ud83d", r"\ude00", r"\u0061", "1", "-", "e9", ".", "NaN",
        "0", "\n", "true", "null", '"b":1', "\ufeff", "\x00", "é",
    ]
)  # fmt: skip


@given(
    st.binary() | st.text().map(str.encode) | st.lists(FRAGMENTS).map(lambda parts: ('{"x":' + "".join(parts)).encode())
)
def test_any_bytes_are_an_object_or_a_refusal(raw: bytes) -> None:
    try:
        body = read(raw)
    except BadRequest:
        return
    assert json.loads(dump(body)) == body == json.loads(raw)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4), st.booleans())
def test_what_is_accepted_reaches_the_upstream_unchanged(body: dict[str, Any], ensure_ascii: bool) -> None:
    raw = json.dumps(body, ensure_ascii=ensure_ascii, allow_nan=False).encode("utf-8", "surrogatepass")
    try:
        understood = read(raw, max_depth=64)
    except BadRequest:
        assert any("\ud800" <= char <= "\udfff" for char in json.dumps(body, ensure_ascii=False))
    else:
        assert json.loads(dump(understood)) == understood == body
