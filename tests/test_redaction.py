"""Keys and credentials are starred out, and nothing moves."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.redaction import Redactor

KEYS = [
    "Authorization: Bearer abc.DEF-1234567890",
    "use sk-proj-abcdefghijklmnop1234 please",
    "my key is ghp_abcdefghijklmnopqrst0123456789",
    "AKIAIOSFODNN7EXAMPLE is it",
    "AIzaSyA-1234567890abcdefghijklmnopqrstu",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "postgres://user:hunter22@db/x",
    'api_key = "abcdef123456"',
    '{"password": "correct-horse"}',
    '{\\"token\\": \\"correct-horse\\"}',
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    "weir-" + "a1_" * 14,
    "xoxb-1234567890-abcdef",
    "Basic dXNlcjpwYXNzd29yZA==",
]
SECRETS = ["abc.DEF", "abcdefghijklmnop", "IOSFODNN7", "SyA-12345", "hunter22", "abcdef123456", "correct-horse"]
SECRETS += ["MIIEow", "a1_a1_", "1234567890-abc", "dXNlcjp", "eyJzdWI"]


@pytest.mark.parametrize("text", KEYS)
def test_what_looks_like_a_key_is_starred_out_and_nothing_moves(text: str) -> None:
    around = f"before {text} after"
    redacted = Redactor().redact(around)
    assert len(redacted) == len(around)
    assert "***" in redacted
    assert not [secret for secret in SECRETS if secret in redacted]
    assert redacted.startswith("before ")
    assert redacted.endswith(" after")


@pytest.mark.parametrize(
    "text", ["The token of my affection is a basic secret: none.", "ask-me-about-it", "a password is needed", "2:3@x"]
)
def test_plain_words_stay(text: str) -> None:
    assert Redactor().redact(text) == text


@given(st.text(), st.text(min_size=6), st.text())
def test_our_own_keys_go_wherever_they_are(before: str, secret: str, after: str) -> None:
    text = before + secret + after
    redacted = Redactor(["x"]).also([secret]).redact(text)
    assert len(redacted) == len(text)
    assert secret.strip("*") == "" or secret not in redacted


def test_no_text_makes_it_slow() -> None:
    for text in ("a" * 262_144, "eyJ" + "a." * 130_000, "://a:" * 50_000, "sk-" * 80_000, "token: " * 37_000):
        begin = time.process_time()
        Redactor().redact(text)
        assert time.process_time() - begin < 2
