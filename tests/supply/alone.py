"""A real server before a scripted upstream, watched for every address that it and its engine turn to.

    python -m tests.supply.alone FOLDER [--without-network]

Prints a line of JSON: the answer, what Python's audit events told, and, without a network, what the kernel counted of
packets that had nowhere to go: native code, which raises no audit events, cannot get past that.
"""

import asyncio
import contextlib
import fcntl
import json
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from tests.driver import answer, read
from tests.fakes import ScriptedUpstream
from tests.reliability.environment import ROOT, environment
from tests.sockets import ask, http_request

# Every Python that starts with this folder on its path reads it: the server, and the engine's process.
WATCH = """
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"):
        address = args[1] if event in ("socket.connect", "socket.sendto", "socket.sendmsg") else args[:2]
        with open({file!r}, "a") as file:
            file.write(f"{{event}} {{address!r}}\\n")
sys.addaudithook(watch)
"""
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
COUNTED = ("Ip.OutNoRoutes", "Udp.OutDatagrams", "Ip6OutNoRoutes", "Udp6OutDatagrams")


def bring_up_loopback() -> None:
    """A new network namespace has it, and it is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name, flags = struct.unpack("16sh", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", name, flags | IFF_UP))


def counters() -> dict[str, int]:
    """What this namespace has sent that no route took, and its datagrams: a question to a name server is one."""
    lines = [line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines()]
    found = {
        f"{names[0].rstrip(':')}.{name}": int(value)
        for names, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(names[1:], values[1:], strict=True)
    }
    newer = Path("/proc/self/net/snmp6")  # missing where IPv6 is switched off
    if newer.exists():
        found |= {name: int(value) for name, value in (line.split() for line in newer.read_text().splitlines())}
    return {name: found.get(name, 0) for name in COUNTED}


async def watched(folder: Path) -> dict[str, Any]:
    """Start, answer once, stop."""
    log = folder / "seen"
    log.touch()
    (folder / "sitecustomize.py").write_text(WATCH.format(file=str(log)))
    async with ScriptedUpstream(answer(["one", " two"])).running() as upstream:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "serve", "--upstream", upstream.url, "--port", "0", "--threads", "1"),
            env=environment(PYTHONPATH=f"{folder}:{ROOT}"),
            cwd=folder,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            await process.stderr.readline()  # it loads
            found = re.search(r"http://[0-9.]+:[0-9]+", first := (await process.stderr.readline()).decode())
            assert found is not None, first
            async with asyncio.timeout(20):
                reply = await ask(found[0], http_request(stream=True))
        finally:
            process.terminate()
            async with asyncio.timeout(30):
                await process.communicate()
    return {"upstream": upstream.url, "text": read(reply.body).content, "seen": log.read_text().splitlines()}


def noticed() -> dict[str, int]:
    """Bring loopback up, with a connection that has no route before and a datagram after: are they counted?"""
    before = counters()
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", 9), 1)
    bring_up_loopback()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(b"?", ("127.0.0.1", 9))
    return risen(before)


def risen(before: dict[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in counters().items()}


def main(folder: str, *flags: str) -> None:
    if "--without-network" not in flags:
        print(json.dumps(asyncio.run(watched(Path(folder))) | {"counted": None}))
        return
    works = {name: count for name, count in noticed().items() if count}
    before = counters()
    told = asyncio.run(watched(Path(folder)))
    print(json.dumps(told | {"counted": risen(before), "noticed": works}))


if __name__ == "__main__":
    main(*sys.argv[1:])
