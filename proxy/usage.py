"""argparse with errors for people: short, and with what was probably meant."""

import argparse
import re
import sys
from difflib import get_close_matches
from typing import Any, NoReturn

# A longer one would push the error, which stands below it, out of sight of its reader.
MAX_USAGE_LINES = 3


class Parser(argparse.ArgumentParser):
    """It keeps the lines of its examples, and takes no abbreviated flags; so do the parsers of its commands."""

    def __init__(self, prog: str | None = None, **more: Any) -> None:
        ours: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(prog, **ours | more)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A word that nobody knows is the error of the command that it was given to, not of `weir`."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        if self.format_usage().count("\n") <= MAX_USAGE_LINES:
            self.print_usage(sys.stderr)
        meant = self._meant(message)
        hint = f"; did you mean {meant}?" if meant else ""
        self.exit(2, f"{self.prog}: error: {message}{hint}\n`{self.prog} --help` says what there is.\n")

    def _meant(self, message: str) -> str | None:
        """The known word that is nearest to the one complained about."""
        if choice := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            word, known = choice[1], re.findall(r"[\w-]+", choice[2])
        elif flag := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            word, known = flag[1], list(self._option_string_actions)  # argparse has no public list of them
        else:
            return None
        return next(iter(get_close_matches(word, known, n=1)), None)
