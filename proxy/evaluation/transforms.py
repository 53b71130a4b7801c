"""Ways to write a text so that people, or who is told how, still read it and a classifier may not."""

import base64
import codecs
import random
import re
from collections.abc import Callable

_WORD = re.compile(r"[A-Za-z]{3,}")
_LOOKALIKES = str.maketrans("aceopxyisjABCEHKMOPTX", "\u0430\u0441\u0435\u043e\u0440\u0445\u0443\u0456\u0455\u0458"
                            "\u0410\u0412\u0421\u0415\u041d\u041a\u041c\u041e\u0420\u0422\u0425")  # fmt: skip
_GREEK = str.maketrans("ovaipABEHIKMNOPTXYZ", "\u03bf\u03bd\u03b1\u03b9\u03c1\u0391\u0392\u0395\u0397\u0399\u039a\u039c"
                       "\u039d\u039f\u03a1\u03a4\u03a7\u03a5\u0396")  # fmt: skip
_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_ZERO_WIDTHS = "\u200b\u200c\u200d\u2060\ufeff"
_ACCENTS = "\u0301\u0300\u0302\u0308\u0323"
_VARIATIONS = [chr(code) for code in range(0xFE00, 0xFE10)]

Transform = Callable[[str, random.Random], str]


def _between(*inserted: str) -> Transform:
    """Something between the letters of every word."""

    def transform(text: str, source: random.Random) -> str:
        def write(word: re.Match[str]) -> str:
            return word[0][0] + "".join(source.choice(inserted) + letter for letter in word[0][1:])

        return _WORD.sub(write, text)

    return transform


def _translated(table: dict[int, int] | dict[int, str]) -> Transform:
    return lambda text, source: _WORD.sub(lambda word: word[0].translate(table), text)


def _shifted(lower: int, upper: int) -> Transform:
    """Letters from other alphabets of a to z."""
    table = {0x61 + n: lower + n for n in range(26)} | {0x41 + n: upper + n for n in range(26)}
    return _translated(table)


def _tagged(text: str, source: random.Random) -> str:
    """Every word with invisible tag letters in its middle."""

    def write(word: re.Match[str]) -> str:
        at = len(word[0]) // 2
        hidden = "".join(chr(0xE0000 + ord(source.choice("abcdefgh"))) for _ in range(3))
        return word[0][:at] + hidden + word[0][at:]

    return _WORD.sub(write, text)


def _accented(text: str, source: random.Random) -> str:
    return _WORD.sub(lambda word: "".join(letter + source.choice(_ACCENTS) for letter in word[0]), text)


def _prefixed(text: str, source: random.Random) -> str:
    """A letter before every word: other tokens, which people still read (TokenBreak, arXiv 2506.07948)."""
    return _WORD.sub(lambda word: source.choice("abcdefgmnprst") + word[0], text)


def _in_base64(text: str, source: random.Random) -> str:
    """The whole text: no person reads that, but a model may have been asked to."""
    return base64.b64encode(text.encode()).decode()


TRANSFORMS: dict[str, Transform] = {
    "zero-width characters": _between(*_ZERO_WIDTHS),
    "soft hyphens": _between("\u00ad"),
    "variation selectors": _between(*_VARIATIONS),
    "tag characters": _tagged,
    "Cyrillic look-alikes": _translated(_LOOKALIKES),
    "Greek look-alikes": _translated(_GREEK),
    "full-width letters": _shifted(0xFF41, 0xFF21),
    "mathematical letters": _shifted(0x1D41A, 0x1D400),
    "circled letters": _shifted(0x24D0, 0x24B6),
    "accents": _accented,
    "leet": _translated(_LEET),
    "spaces between letters": _between(" "),
    "dots between letters": _between("."),
    "a letter in front": _prefixed,
    "rot13": lambda text, source: codecs.encode(text, "rot13"),
    "base64": _in_base64,
}


def transformed(name: str, text: str) -> str:
    """The same text always gives the same."""
    return TRANSFORMS[name](text, random.Random(f"{name} {text}"))
