"""The lengths of tokens: a character counts where its last byte is."""

from proxy import vocabulary
from proxy.pretoken import MAX_CACHED_CHARACTERS, Token, measure, tokens_of


def test_a_word_is_a_token_with_its_characters() -> None:
    assert tokens_of(" world") == (Token(1879, 6),)


def test_a_character_of_several_tokens_counts_in_the_last() -> None:
    tokens = tokens_of("𐌼𐌰")
    assert vocabulary.decode(token.id for token in tokens) == "𐌼𐌰"
    assert len(tokens) > 2
    assert (tokens[0].length, tokens[-1].length, sum(token.length for token in tokens)) == (0, 1, 2)


def test_measuring_may_start_within_a_character() -> None:
    raw = "𐌼".encode()
    ids = vocabulary.load().encode_piece(raw)
    entries = vocabulary.load().entries
    assert len(ids) > 1
    assert measure(raw, len(entries[ids[0]]), ids[1:])[-1].length == 1


def test_long_pieces_are_encoded_too() -> None:
    piece = "x" * (MAX_CACHED_CHARACTERS + 1)
    assert sum(token.length for token in tokens_of(piece)) == len(piece)
