"""What the guard reads and what the client gets is valid text, and the same."""

from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Delta, Key, Kind, Logprob
from proxy.surrogates import DeltaJoiner, SurrogateJoiner, repair

ANY_TEXT = st.text(st.sampled_from(["a", "é", "😀", "\ud83d", "\ude00", "\udfff"]), max_size=12)


def test_a_pair_split_over_two_parts_is_joined() -> None:
    joiner = SurrogateJoiner()
    assert joiner.feed("x\ud83d") == "x"
    assert joiner.feed("\ude00y") == "😀y"
    assert joiner.finish() == ""


def test_a_high_half_that_never_finds_its_partner_is_replaced_at_the_end() -> None:
    joiner = SurrogateJoiner()
    assert joiner.feed("\ud83d") == ""
    assert joiner.feed("") == ""
    assert joiner.finish() == "�"


@given(ANY_TEXT, st.data())
def test_any_cut_gives_the_repaired_whole(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    joiner = SurrogateJoiner()
    parts = joiner.feed(text[:at]) + joiner.feed(text[at:]) + joiner.finish()
    assert parts == repair(text)
    parts.encode()


def test_a_delta_that_is_repaired_loses_the_logprobs_that_repeat_it() -> None:
    def delta(text: str) -> Delta:
        return Delta(Key(0, "content"), Kind.CONTENT, text, extra={"id": 1}, logprobs=(Logprob(b"x", {}),))

    joiner = DeltaJoiner()
    assert joiner.finish() is None
    whole = delta("fine")
    assert joiner.feed(whole) is whole
    half = joiner.feed(delta("x\ud83d"))
    assert (half.text, half.logprobs) == ("x", ())
    rest = joiner.finish()
    assert rest is not None
    assert (rest.text, rest.extra, rest.logprobs) == ("\ufffd", {}, ())
