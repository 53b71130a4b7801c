"""What `weir records` prints: tables on a terminal, columns divided by tabs elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.store.row import category_of

STYLES = {"complete": "green", "cut": "red", "refused": "yellow", "error": "magenta", "client_gone": "dim"}
LIST_COLUMNS = ("id", "started", "outcome", "category", "model", "key", "tokens", "seconds")
CHANNEL_COLUMNS = ("choice", "channel", "received", "scanned", "delivered", "tokens", "worst", "flagged")
RUN_COLUMNS = ("choice", "channel", "start", "end", "tokens", "level", "unsafe", "text")


def print_list(records: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    console = console or Console()
    _print_table(LIST_COLUMNS, [_line(record) for record in records], console)
    if console.is_terminal and not records:
        console.print("No records fit.")


def print_record(record: Mapping[str, Any], console: Console | None = None) -> None:
    console = console or Console()
    rows = [(name, _text(value)) for name, value in as_columns(record).items() if value not in (None, "")]
    _print_table(("", ""), rows, console)
    channels = [tuple(_text(_note(channel[name])) for name in CHANNEL_COLUMNS) for channel in record["channels"]]
    if channels:
        _print_table(CHANNEL_COLUMNS, channels, console)
    if runs := [run for channel in record.get("trace", {"channels": []})["channels"] for run in _runs(channel)]:
        _print_table(RUN_COLUMNS, runs, console)


def _runs(channel: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Tokens of one level in a row, in the plain view."""
    view = channel["views"][0] if channel["views"] else {"levels": []}
    start = 0
    for level, group in groupby(range(len(view["levels"])), key=view["levels"].__getitem__):
        places = list(group)
        end = view["ends"][places[-1]]
        worst = max(view["unsafe"][place] for place in places)
        text = channel.get("text", "")[start:end]
        yield tuple(map(_text, (channel["choice"], channel["channel"], start, end, len(places), level, worst, text)))
        start = end


def as_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """All but the channels, each as one value."""
    found = {name: value for name, value in record.items() if name not in ("channels", "trace")}
    found["started"] = when(record["started"])
    found |= {name: " ".join(map(str, value)) for name, value in found.items() if isinstance(value, list | tuple)}
    found["prompt"] = _note(record["prompt"])
    return found | {"tokens": _tokens(record)}


def when(started: float) -> str:
    """Local time, as ISO 8601."""
    return datetime.fromtimestamp(started).astimezone().isoformat(timespec="milliseconds")


def _line(record: Mapping[str, Any]) -> tuple[str, ...]:
    values = {
        **record,
        "id": record["request_id"],
        "started": when(record["started"]),
        "category": category_of(record),
        "tokens": _tokens(record),
        "seconds": f"{record['seconds']:.2f}",
    }
    return tuple(_text(values.get(name, "")) for name in LIST_COLUMNS)


def _tokens(record: Mapping[str, Any]) -> int:
    return sum(int(channel["tokens"]) for channel in record["channels"])


def _note(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    category = f" {value['category']}" if value["category"] else ""
    return f"{value['risk_level']}{category} {value['probability']:.2f} [{value['start']}:{value['end']}]"


def _text(value: Any) -> str:
    """Names come from clients: what would steer a terminal is spelled out."""
    shown = "" if value is None else str(value)
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in shown)


def _print_table(names: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    if not console.is_terminal:
        lines = ([list(names)] if any(names) else []) + [list(row) for row in rows]
        for line in lines:
            console.file.write("\t".join(line) + "\n")
        return
    table = Table(show_header=any(names), box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    console.print(table)
