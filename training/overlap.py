"""Whether a text of ours is one of the evaluation's, or nearly: by the shingles of its characters."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

WIDTH = 8  # characters of a shingle
OF_SMALLER, OF_LARGER = 0.6, 0.35  # shared shingles that make two texts the same


class Known:
    """The texts that nothing of ours may repeat."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._normal = {normal(text) for text in texts} - {""}
        self._sizes: list[int] = []
        self._owners: defaultdict[str, list[int]] = defaultdict(list)
        for text in sorted(self._normal):
            pieces = shingles(text)
            for piece in pieces:
                self._owners[piece].append(len(self._sizes))
            self._sizes.append(len(pieces))

    def holds(self, text: str) -> bool:
        """Whether `text` is one of them, but for case and punctuation, or shares most of its letters with one."""
        if normal(text) in self._normal:
            return True
        pieces = shingles(normal(text))
        shared = Counter(owner for piece in pieces for owner in self._owners.get(piece, ()))
        return any(
            count >= OF_SMALLER * min(len(pieces), self._sizes[owner])
            and count >= OF_LARGER * max(len(pieces), self._sizes[owner])
            for owner, count in shared.items()
        )


def normal(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def shingles(text: str) -> set[str]:
    return {text[start : start + WIDTH] for start in range(max(1, len(text) - WIDTH + 1))} if text else set()
