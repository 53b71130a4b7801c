"""Where each choice of a response stands."""

from enum import Enum


class Choice(Enum):
    OPEN = "open"
    FINISHED = "finished"  # the upstream said so
    CUT = "cut"


class Choices:
    """The choices that have been heard of, out of `expected`."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._states: dict[int, Choice] = {}

    def is_open(self, number: int) -> bool:
        """Whether more may come of a choice; asking makes it known."""
        return self._states.setdefault(number, Choice.OPEN) is Choice.OPEN

    def is_cut(self, number: int) -> bool:
        return self._states.get(number) is Choice.CUT

    def finish(self, number: int) -> None:
        self._states[number] = Choice.FINISHED

    def cut(self, number: int) -> None:
        self._states[number] = Choice.CUT

    @property
    def uncut(self) -> list[int]:
        return [number for number, state in self._states.items() if state is not Choice.CUT]

    @property
    def are_all_ended(self) -> bool:
        """Whether every choice that was asked for has come, and none is open."""
        return len(self._states) >= self._expected and Choice.OPEN not in self._states.values()
