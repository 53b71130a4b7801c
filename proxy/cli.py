"""The `weir` command: reads flags and settings, and hands over to the room that does the work."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from proxy import __version__
from proxy.benchmark.options import add_options, count, wanted_of
from proxy.completion import SHELLS, script
from proxy.config import DEFAULT_FILE, FLAGS, ConfigError, Settings, load_settings, require_upstream
from proxy.fleet_options import add_fleet_options
from proxy.identity import announce
from proxy.init import write_settings
from proxy.manual import DESCRIPTION, EPILOG, EXAMPLES, SETTINGS_EPILOG
from proxy.policy_settings import Route
from proxy.setting_types import SHORT_NAME, SHORT_NAMES
from proxy.store.options import add_actions
from proxy.usage import Parser

# The keys that each command has flags for; `moderate` talks to no one and cuts nothing.
KEYS = {
    "serve": list(FLAGS),
    "doctor": list(FLAGS),
    "moderate": [key for key in FLAGS if key.startswith("guard.") and key != "guard.on_failure"]
    + ["policy.mode", "policy.debounce"],
    "guard": [key for key in FLAGS if key.startswith("guard.") and key != "guard.on_failure"],
    "eval": [key for key in FLAGS if key.startswith("guard.") and key != "guard.on_failure"],
    "records": ["records.file"],
    "bench": [key for key in FLAGS if key.startswith("guard.") and key != "guard.on_failure"],
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        return 2
    arguments = parser.parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return command(arguments)
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # as shells count an interrupt
    except BrokenPipeError:
        # The reader of our output has gone, as in `weir moderate x | head`: nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


# The rooms below are imported when their command runs: they load torch, aiohttp and the vocabulary,
# and `weir --help` or a wrong flag should not wait for that.


def _serve(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    require_upstream(settings)
    from proxy.serving import serve
    from proxy.workers import serve_with_workers

    several = serve_with_workers if settings.server.workers > 1 else None
    return serve(settings, lambda: _settings(arguments), several)


def _moderate(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    from proxy.moderations import run

    return run(arguments.files, settings, as_json=arguments.json, streams=arguments.streams)


def _doctor(arguments: argparse.Namespace) -> int:
    from proxy.doctor import run

    return run(lambda: _settings(arguments), os.environ)


def _demo(arguments: argparse.Namespace) -> int:
    from proxy.demo import run

    return run(is_staying=arguments.stay, llm=arguments.scripted_llm)


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port, and no host and port")
    return host.strip("[]") or "127.0.0.1", int(port)


def _guard(arguments: argparse.Namespace) -> int:
    place = {} if arguments.address is None else {"guard.ray_address": arguments.address}
    settings = _settings(arguments, place)
    if arguments.action != "serve":
        from proxy.fleet_command import run

        return run(arguments, settings)
    from proxy.guards import serve_guard

    return serve_guard(settings)


def _policy(arguments: argparse.Namespace) -> int:
    from proxy.policy_check import Asked, run

    asked = Asked(arguments.route, arguments.model, arguments.to_upstream, arguments.key)
    return run(arguments.file, asked, os.environ, as_json=arguments.json)


def _key(arguments: argparse.Namespace) -> int:
    print(announce(arguments.name))
    return 0


def _export_embedded(arguments: argparse.Namespace) -> int:
    from proxy.export import run

    return run(arguments.folder, force=arguments.force)


def _eval(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    from proxy.evaluation.command import Wanted, run

    given = {
        key: getattr(arguments, key)
        for key in ("mode", "json", "picture", "out", "streams", "read_end", "transforms", "sample")
    }
    return run(Wanted(tuple(arguments.data), **given), settings)


def _records(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    from proxy.store.command import run

    return run(arguments, settings.records)


def _bench(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    from proxy.benchmark.command import run

    return run(wanted_of(arguments), settings.guard)


def _init(arguments: argparse.Namespace) -> int:
    return write_settings(arguments.file)


def _completion(arguments: argparse.Namespace) -> int:
    print(script(_parser(), arguments.shell))
    return 0


def _settings(arguments: argparse.Namespace, more: Mapping[str, Any] | None = None) -> Settings:
    """Raises ConfigError."""
    given: Mapping[str, Any] = vars(arguments)
    flags = {key: given[key] for key in FLAGS if given.get(key) is not None}
    return load_settings(arguments.config, {**flags, **(more or {})})


def _parser() -> argparse.ArgumentParser:
    parser = Parser("weir", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"weir {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], description: str) -> argparse.ArgumentParser:
        epilog = EXAMPLES[name] + (f"\n{SETTINGS_EPILOG}" if name in KEYS else "")
        command = commands.add_parser(name, description=description, epilog=epilog, help=description)
        command.set_defaults(run=run)
        if name in KEYS and name != "records":  # whose actions have them
            _add_settings(command, KEYS[name])
        return command

    add("serve", _serve, "Serve the OpenAI API in front of an upstream.")
    _add_moderate(add("moderate", _moderate, "Judge conversations from files, token by token."))
    init = add("init", _init, "Write a weir.toml with every key explained.")
    init.add_argument(
        "file",
        type=Path,
        nargs="?",
        default=DEFAULT_FILE,
        metavar="FILE",
        help="where to; default: weir.toml; - prints it",
    )
    add("doctor", _doctor, "Check settings, upstream and guard, and say what to do.")
    demo = add("demo", _demo, "Stream three conversations through Weir, with a scripted model and the embedded guard.")
    instead = demo.add_mutually_exclusive_group()
    instead.add_argument("--stay", action="store_true", help="do not stream them: serve on port 8080 until stopped")
    instead.add_argument(
        "--scripted-llm", type=_place, metavar="[HOST:]PORT", help="serve the scripted model alone, as an upstream"
    )
    guard = add("guard", _guard, "Serve a guard to proxies elsewhere: one here, or many on a Ray cluster.")
    add_fleet_options(guard)
    _add_policy(add("policy", _policy, "Explain the policies of a file: what comes of each risk, and for whom."))
    _add_key(add("key", _key, "Make a key that lets a client in."))
    _add_export(add("export-embedded", _export_embedded, "Write the embedded guard as a plain checkpoint folder."))
    _add_eval(add("eval", _eval, "Measure a guard on labelled conversations, by the published evaluation's rules."))
    records = add("records", _records, "Search the records that are kept: one a request.")
    add_actions(records, lambda action: _add_settings(action, KEYS["records"]))
    completion = add("completion", _completion, "Print a script that completes weir's commands in a shell.")
    completion.add_argument("shell", choices=SHELLS, help="for which shell")
    add_options(add("bench", _bench, "Measure how fast a guard is here, beside the other ways of running it."))
    return parser


def _add_policy(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=("check",), help="check: read the file, and say what it leads to")
    command.add_argument("file", type=Path, metavar="FILE", help="settings, as `weir serve --config` takes them")
    command.add_argument("--route", choices=get_args(Route), metavar="PATH", help="of a request: the path it calls")
    command.add_argument("--model", help="of a request: the model it names")
    command.add_argument("--upstream", dest="to_upstream", metavar="NAME", help="of a request: where it goes")
    command.add_argument("--key", metavar="NAME", help="of a request: the name of the key it comes with")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="DIR", help="where to; made if it does not exist")
    command.add_argument("--force", action="store_true", help="write into a folder that is not empty")


def _add_key(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=("new",), help="new: a key that did not exist before")
    command.add_argument("name", type=_key_name, metavar="NAME", help="whose it is, for records and limits")


def _key_name(text: str) -> str:
    if not re.fullmatch(SHORT_NAME, text):
        raise argparse.ArgumentTypeError(SHORT_NAMES)
    return text


def _add_moderate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help='JSON {"messages": [...]}, a list or lines of them; - is standard input',
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.add_argument("--streams", type=count, default=16, metavar="N", help="conversations at once; default: 16")


def _add_eval(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE", help="JSON lines, .gz too")
    command.add_argument(
        "--mode",
        choices=("both", "strict", "loose"),
        default="both",
        help="which figures to show; strict flags Controversial",
    )
    command.add_argument("--json", metavar="FILE", help="write the figures as JSON; - prints them instead of tables")
    command.add_argument("--picture", type=Path, metavar="FILE", help="draw timing and risk curves as a PNG")
    command.add_argument("--out", type=Path, metavar="DIR", help="a folder for all of it, and a line an item")
    command.add_argument("--streams", type=count, default=64, metavar="N", help="conversations at once; default: 64")
    command.add_argument("--transforms", action="store_true", help="also measure detection of disguised texts")
    command.add_argument(
        "--sample",
        type=count,
        default=50,
        metavar="N",
        help="texts of each kind and label for --transforms; default: 50",
    )
    command.add_argument(
        "--read-end", action="store_true", help="judge the two tokens that end a turn too, as the published script does"
    )


def _add_settings(command: argparse.ArgumentParser, keys: Sequence[str]) -> None:
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="settings; default: weir.toml here, if there is one"
    )
    for key in keys:
        section, name = key.split(".")
        field = type(getattr(Settings(), section)).model_fields[name]
        # Values are checked with all the other settings, so the choices are only shown.
        choices = "|".join(get_args(field.annotation)) if get_origin(field.annotation) is Literal else name.upper()
        # argparse formats help with %.
        description = (field.description or "").rstrip(".").replace("%", "%%")
        command.add_argument(FLAGS[key], dest=key, metavar=choices, help=f"{description} [{key}]")
