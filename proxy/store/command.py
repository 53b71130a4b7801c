"""`weir records`: list, show and export what is kept."""

import csv
import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from proxy.record_settings import RecordSettings
from proxy.store.base import StoreError
from proxy.store.filters import Filter
from proxy.store.options import STANDARD_OUTPUT
from proxy.store.places import open_reader
from proxy.store.row import category_of
from proxy.store.tables import as_columns, print_list, print_record

FAILED, NOT_FOUND = 1, 2


def run(arguments: Namespace, settings: RecordSettings) -> int:
    """Returns the exit status. Raises ConfigError."""
    action = {"list": _list, "show": _show, "export": _export}[arguments.action]
    try:
        return action(arguments, settings)
    except StoreError as exc:
        print(f"The records cannot be read: {exc}.", file=sys.stderr)
        return FAILED


def _filter(arguments: Namespace) -> Filter:
    return Filter(**{field.name: getattr(arguments, field.name) for field in fields(Filter)})


def _list(arguments: Namespace, settings: RecordSettings) -> int:
    with open_reader(settings) as store:
        found = store.find(_filter(arguments), most=arguments.limit)
        if arguments.json:
            _write_lines(found, sys.stdout)
        else:
            print_list(list(found))
    return 0


def _show(arguments: Namespace, settings: RecordSettings) -> int:
    wanted = arguments.id if arguments.id.startswith("weir-") else f"weir-{arguments.id}"
    with open_reader(settings) as store:
        record = store.show(wanted)
    if record is None:
        print(f"There is no record {arguments.id}, or more than one begins so.", file=sys.stderr)
        return NOT_FOUND
    if arguments.json:
        print(json.dumps(record, indent=2))
    else:
        print_record(record)
    return 0


def _export(arguments: Namespace, settings: RecordSettings) -> int:
    write = {"jsonl": _write_lines, "csv": _write_csv}[arguments.format]
    with open_reader(settings) as store:
        found = store.find(_filter(arguments), newest_first=False)
        if arguments.output == STANDARD_OUTPUT:
            write(found, sys.stdout)
            return 0
        try:
            with Path(arguments.output).open("w", encoding="utf-8", newline="") as target:
                write(found, target)
        except OSError as exc:
            print(f"{arguments.output} cannot be written: {(exc.strerror or str(exc)).lower()}.", file=sys.stderr)
            return FAILED
    return 0


def _write_lines(found: Iterable[Mapping[str, Any]], target: TextIO) -> None:
    for record in found:
        target.write(json.dumps(record) + "\n")


def _write_csv(found: Iterable[Mapping[str, Any]], target: TextIO) -> None:
    writer = csv.writer(target)
    names: list[str] = []
    for record in found:
        columns = as_columns(record) | {"category": category_of(record)}
        if not names:
            names = list(columns)
            writer.writerow(names)
        writer.writerow([_cell(columns[name]) for name in names])


def _cell(value: Any) -> Any:
    """A spreadsheet would run a text that begins like a formula, and clients choose some of the texts."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
