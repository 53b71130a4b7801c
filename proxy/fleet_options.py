"""The options of `weir guard`."""

import argparse

from proxy.benchmark.options import count


def add_fleet_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "action",
        choices=("serve", "up", "status", "drain", "down"),
        help="serve: one here, until stopped; the others: engines on a Ray cluster",
    )
    command.add_argument("names", nargs="*", metavar="NAME", help="drain, down: which engines; down without: all")
    command.add_argument("--address", metavar="HOST:PORT", help="of the Ray cluster; default: guard.ray_address")
    command.add_argument(
        "--replicas", type=count, default=1, metavar="N", help="up: how many there shall be; default: 1"
    )
    command.add_argument("--cpus", type=float, default=1.0, metavar="N", help="up: of each; default: 1")
    command.add_argument("--gpus", type=float, metavar="N", help="up: of each; default: 1 with --device cuda, else 0")
    command.add_argument(
        "--wait", type=float, metavar="SECONDS",
        help="up: for the engines to be there, default: 600; down: for their streams to end first, default: 0",
    )  # fmt: skip
