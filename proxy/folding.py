# ruff: noqa: RUF001 - letters that look alike are what this is about.
"""A text as a reader sees it, while it streams: without the invisible, and with look-alikes as the letters they mimic.

Zero-width characters, soft hyphens, variation selectors and tags inside a word, full-width or mathematical letters,
a Cyrillic letter in a Latin word: people and language models read over them, a classifier of tokens stumbles. With
`guard.folded_view` such a text is judged folded as well as it stands; what is delivered never changes.

Other scripts stay what they are: a look-alike is folded only in a word that has Latin letters, or, if the whole
word could be read as Latin, behind a Latin word. Punctuation and blanks are never folded, so that text in Chinese,
say, is its own folded view and costs nothing.
"""

import re
import unicodedata
from enum import Enum
from functools import lru_cache

# Invisible and not of category Cf: grapheme joiner, Hangul and Khmer fillers, Mongolian and other variation selectors.
_INVISIBLE = frozenset(
    map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)))
) | frozenset(map(chr, range(0xE0000, 0xE1000)))
_EMOJI_JOINERS = "\ufe0f\u200d"
_KEYCAPS = "0123456789#*"
_ASCII_BREAK = re.compile("[^0-9A-Za-z]")
# Korean chats are full of these, and NFKC makes parts of syllables of them.
_COMPATIBILITY_JAMO = re.compile("[\u3130-\u318f\uffa0-\uffdc]")

# After so many dropped characters one is kept, so that what stands before them can be decided.
MAX_DROPPED = 1024
# Letters of one word that are kept back until it shows its script: longer than words are.
MAX_WORD = 64


def _table(*rows: str) -> dict[str, str]:
    """Rows of "lookalikes letters", character for character."""
    pairs = [row.split() for row in rows]
    return {char: letter for chars, letters in pairs for char, letter in zip(chars, letters, strict=True)}


# Forms of Latin letters that NFKC leaves alone: small capitals, phonetic letters, letters in black circles and squares.
LATIN_FORMS = _table(
    "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ abcdefghijklmnoprstuvwyz",
    "ɑɡıȷɩʋƖɼɾ agijivlrr",
) | {chr(base + n): chr(0x41 + n) for base in (0x1F150, 0x1F170) for n in range(26)}
# Letters of other scripts that look the same as Latin ones in print.
LOOKALIKES = _table(
    "аеорсухіјѕһԁԛԝӏѵүАВЕКМНОРСТУХЅІЈԚԜѴҮӀ aeopcyxijshdqwlvyABEKMHOPCTYXSIJQWVYI",  # Cyrillic
    "οανϲϳιΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹͿ oavcjiABEZHIKMNOPTYXCJ",  # Greek
    "օոսցհզյՕԼՏՍ onughqjOLSU",  # Armenian
    "ᎠᎡᎢᎥᎪᎫᎬᎳᎷᎻᎽᏀᏃᏒᏔᏕᏙᏚᏞᏟᏢᏦᏴ DRTiAJEWMHYGZRWSVSLCPKB",  # Cherokee
    "ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ BPDTGKJCZFMNLSRVHWXYAEIOU",  # Lisu
    "ⲟⲣⲥⲞⲢⲤ opcOPC",  # Coptic
)
# Those that only pass for one among Latin letters.
RESEMBLING = _table("вкмтнгпиьзЬ bkmthrnub3b", "ρυγκτηωσεδ puyktnwoed")


class _Script(Enum):
    """Of the word so far."""

    UNKNOWN = "nothing but look-alikes, digits and marks"
    LATIN = "Latin"
    OTHER = "another one"


class Folder:
    """Folds a text that arrives in parts; any cut gives the same.

    Each character it returns comes with the number of source characters that it stands for: a dropped one counts
    to the next that is kept, and one that becomes several counts to the last of those. At the end of a text
    `trailing` are left, which no character stands for.
    """

    def __init__(self) -> None:
        self.has_changed = False  # is the folded text another one, so far?
        self.trailing = 0  # dropped characters that wait for one that is kept
        self._after_symbol = self._after_keycap = False
        self._script = _Script.UNKNOWN
        self._follows_latin = False
        self._word: list[tuple[str, int]] = []  # its beginning, kept back while the script is unknown
        self._text: list[str] = []
        self._widths: list[int] = []

    def feed(self, text: str) -> tuple[str, list[int]]:
        if text.isascii() and not self._word and not self.trailing:
            self._pass(text)
            return text, [1] * len(text)
        for char in text:
            self._read(char)
        return self._taken()

    def finish(self) -> tuple[str, list[int]]:
        self._end_word()
        return self._taken()

    def peek(self) -> tuple[str, list[int]]:
        """What `finish` would return now; the text may go on."""
        fold = _folded if self._reads_as_latin() else str
        return "".join(fold(char) for char, _ in self._word), [width for _, width in self._word]

    @property
    def would_change(self) -> bool:
        """Is the folded text another one, should it end here?"""
        return self.has_changed or (bool(self._word) and self._reads_as_latin())

    def _pass(self, text: str) -> None:
        """ASCII is its own folded text; what it says of scripts matters to what follows."""
        if not text:
            return
        self._after_symbol, self._after_keycap = unicodedata.category(text[-1])[0] == "S", text[-1] in _KEYCAPS
        first, _, rest = _ASCII_BREAK.sub("\n", text, count=1).partition("\n")
        self._pass_word(first)
        if len(first) < len(text):
            self._end_word()
            begin = len(rest)
            while begin and rest[begin - 1].isalnum():
                begin -= 1
            self._follows_latin = self._follows_latin or any(map(str.isalpha, rest[:begin]))
            self._pass_word(rest[begin:])

    def _pass_word(self, part: str) -> None:
        if self._script is _Script.UNKNOWN and any(map(str.isalpha, part)):
            self._script = _Script.LATIN

    def _read(self, char: str) -> None:
        if self._is_dropped(char):
            self.has_changed = True
            if self.trailing < MAX_DROPPED:
                self.trailing += 1
                return
        folded = _compatible(char)
        self.has_changed = self.has_changed or folded != char
        for part in folded[:-1]:
            self._add(part, 0)
        width, self.trailing = 1 + self.trailing, 0
        self._add(folded[-1], width)

    def _is_dropped(self, char: str) -> bool:
        if char in _EMOJI_JOINERS and (self._after_symbol or (self._after_keycap and char == "\ufe0f")):
            return False  # part of a picture
        if _is_invisible(char):
            return True
        self._after_symbol, self._after_keycap = unicodedata.category(char)[0] == "S", char in _KEYCAPS
        return False

    def _add(self, char: str, width: int) -> None:
        if not _is_in_word(char):
            self._end_word()
            if char.isalpha():
                self._follows_latin = False
            self._emit(char, width)
            return
        if self._script is _Script.UNKNOWN and char.isalpha() and not _is_lookalike(char):
            self._decide(_Script.LATIN if _is_latin(char) else _Script.OTHER)
        if self._script is _Script.UNKNOWN and (self._word or _is_lookalike(char)):
            self._word.append((char, width))
            if len(self._word) >= MAX_WORD:
                self._decide(_Script.LATIN if self._reads_as_latin() else _Script.OTHER)
            return
        self._emit_in_word(char, width)

    def _decide(self, script: _Script) -> None:
        """The script of the word is known: what was kept back can go."""
        self._script = script
        word, self._word = self._word, []
        for char, width in word:
            self._emit_in_word(char, width)

    def _reads_as_latin(self) -> bool:
        """May a word of look-alikes alone be a Latin one? Behind a Latin word, if each letter is the same in print."""
        return self._follows_latin and not any(char in RESEMBLING for char, _ in self._word)

    def _end_word(self) -> None:
        if self._word:
            self._decide(_Script.LATIN if self._reads_as_latin() else _Script.OTHER)
        if self._script is not _Script.UNKNOWN:
            self._follows_latin = self._script is _Script.LATIN
        self._script = _Script.UNKNOWN

    def _emit_in_word(self, char: str, width: int) -> None:
        folded = _folded(char) if self._script is _Script.LATIN else char
        self.has_changed = self.has_changed or folded != char
        self._emit(folded, width)

    def _emit(self, char: str, width: int) -> None:
        self._text.append(char)
        self._widths.append(width)

    def _taken(self) -> tuple[str, list[int]]:
        text, widths = "".join(self._text), self._widths
        self._text, self._widths = [], []
        return text, widths


def fold(text: str) -> str:
    """A whole text, folded."""
    folder = Folder()
    return folder.feed(text)[0] + folder.finish()[0]


@lru_cache(maxsize=4096)
def _is_invisible(char: str) -> bool:
    return char in _INVISIBLE or unicodedata.category(char) == "Cf"


@lru_cache(maxsize=4096)
def _compatible(char: str) -> str:
    """The letters and digits that a character is a form of; anything else stays."""
    if char.isascii() or _COMPATIBILITY_JAMO.match(char):
        return char
    folded = "".join(LATIN_FORMS.get(part, part) for part in unicodedata.normalize("NFKC", char))
    return folded if any(map(str.isalnum, folded)) else char


@lru_cache(maxsize=4096)
def _is_in_word(char: str) -> bool:
    """Marks and digits are. Letters without case are not: those scripts run words together, and around Latin ones."""
    if char.isalpha():
        return char.lower() != char.upper() or _is_lookalike(char) or _is_latin(char)
    return char.isalnum() or unicodedata.category(char)[0] == "M"


def _is_lookalike(char: str) -> bool:
    return char in LOOKALIKES or char in RESEMBLING


@lru_cache(maxsize=4096)
def _is_latin(char: str) -> bool:
    return char.isascii() or unicodedata.name(char, "").startswith("LATIN")


def _folded(char: str) -> str:
    return LOOKALIKES.get(char) or RESEMBLING.get(char) or char
