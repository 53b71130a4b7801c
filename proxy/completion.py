"""`weir completion`: what a shell needs to complete commands, flags and their values.

The scripts are shtab's: they know everything beforehand, so that a press of Tab never starts Python.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shtab

SHELLS = ("bash", "zsh", "fish")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for one of SHELLS. The parser is told the values of its flags, so it is of no use afterwards."""
    for action in _actions(parser):
        files: Any = action  # shtab looks for an attribute that argparse does not know
        if isinstance(action.metavar, str) and "|" in action.metavar:
            action.choices = action.metavar.split("|")
        elif action.metavar == "DIR":
            files.complete = shtab.DIRECTORY
        elif action.metavar == "FILE" or action.type is Path:
            files.complete = shtab.FILE
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # argparse has no public way to walk a parser
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
