"""The flags of `weir records`. Light: `weir --help` reads them."""

import time
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable

from proxy.benchmark.options import count
from proxy.risk import Category
from proxy.store.filters import moment

STANDARD_OUTPUT = "-"
OUTCOMES = ("complete", "cut", "error", "refused", "client_gone")
EXAMPLES = """\
examples:
  weir records list --since 24h --outcome cut
  weir records list --model 'gpt-*' --json
  weir records show weir-0f3a
  weir records export --since 2026-01-01 --category Violent --format csv --output violent.csv

Records are kept where [records] file or url says so, the same for `weir serve` and here. In a pipe `list`
and `show` print columns divided by tabs.
"""


def add_actions(command: ArgumentParser, add_settings: Callable[[ArgumentParser], None]) -> None:
    """`list`, `show` and `export`, each with its flags and those of the settings."""
    actions = command.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    described = {
        "list": (_add_list, "Show the newest records."),
        "show": (_add_show, "Show one record."),
        "export": (_add_export, "Write records to a file, the oldest first."),
    }
    for name, (add, description) in described.items():
        action = actions.add_parser(name, description=description, help=description, allow_abbrev=False)
        add(action)
        add_settings(action)


def _add_filters(action: ArgumentParser) -> None:
    action.add_argument("--since", type=_moment, metavar="WHEN", help="90m, 24h, 7d, or a date; local time")
    action.add_argument("--until", type=_moment, metavar="WHEN", help="the same; not included")
    action.add_argument("--outcome", choices=OUTCOMES, help="how the request ended")
    action.add_argument("--category", choices=[str(one) for one in Category], help="what was flagged")
    action.add_argument("--key", metavar="NAME", help="the name of the caller's key")
    action.add_argument("--model", metavar="MODEL", help="as clients name it; * stands for any characters")


def _add_list(action: ArgumentParser) -> None:
    _add_filters(action)
    action.add_argument("--limit", type=count, default=50, metavar="N", help="how many; default: 50")
    action.add_argument("--json", action="store_true", help="print JSON lines instead of a table")


def _add_show(action: ArgumentParser) -> None:
    action.add_argument("id", metavar="ID", help="a request's id, or its first characters")
    action.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _add_export(action: ArgumentParser) -> None:
    _add_filters(action)
    action.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="default: jsonl")
    action.add_argument("--output", metavar="FILE", default=STANDARD_OUTPUT, help="where to; default: standard output")


def _moment(text: str) -> float:
    try:
        return moment(text, time.time())
    except ValueError as exc:
        raise ArgumentTypeError(str(exc)) from exc
