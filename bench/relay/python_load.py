"""The fake upstream and the load client in Python, for where there is no C compiler: slower, same lines in and out.

`python -m bench.relay.python_load upstream | client -p PORT ...`; what they do is told in the C files.
"""

import asyncio
import json
import re
import sys
import time
from dataclasses import dataclass, field

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1741570283,"model":"gpt-4o-2024-08-06",'
    '"service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":%s,'
    '"logprobs":null,"finish_reason":%s}]}\n\n'
)
WORDS = ("the", "river", "runs", "down", "to", "a", "quiet", "sea", "and", "boats", "come", "home")
CONTROL = re.compile(rb"bench:n=(\d+),rate=([\d.]+),stamp=(\d+);")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
STAMP_PAIRS = 4
STAMP = re.compile(rb"@T((?: [a-z]{2}){4})")
STAMP_PERIOD: int = 676**STAMP_PAIRS


def now_microseconds() -> int:
    return time.monotonic_ns() // 1000


def stamp() -> str:
    rest, pairs = now_microseconds(), ""
    for _ in range(STAMP_PAIRS):
        rest, pair = divmod(rest, 676)
        pairs = f" {chr(ord('a') + pair // 26)}{chr(ord('a') + pair % 26)}{pairs}"
    return f" @T{pairs}."


def age(pairs: bytes) -> int:
    sent = 0
    for letter in pairs.replace(b" ", b""):
        sent = sent * 26 + letter - ord("a")
    return (now_microseconds() - sent) % STAMP_PERIOD


def event(number: int, stamp_every: int) -> bytes:
    text = stamp() if number % stamp_every == 0 else f" {WORDS[number % len(WORDS)]}"
    delta = {"content": text} if number else {"role": "assistant", "content": text}
    return coded(EVENT % (json.dumps(delta), "null"))


def coded(text: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text.encode())


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    return await reader.readexactly(int(length[1])) if length else b""


async def stream(body: bytes, writer: asyncio.StreamWriter) -> None:
    found = CONTROL.search(body)
    assert found is not None
    chunks, rate, stamp_every = int(found[1]), float(found[2]), int(found[3])
    writer.write(HEAD)
    due = time.monotonic()
    for number in range(chunks):
        writer.write(event(number, stamp_every))
        if rate:
            due += 1 / rate
            await writer.drain()
            await asyncio.sleep(due - time.monotonic())
    writer.write(coded(EVENT % ("{}", '"stop"') + "data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await stream(await read_request(reader), writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@dataclass
class Client:
    options: dict[str, float]
    begin: int = 0  # microseconds, of the window
    end: int = 0
    ages: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    requests: int = 0
    errors: int = 0
    first_error: str = ""

    async def run(self) -> None:
        options = self.options
        start = now_microseconds()
        self.begin = start + int(options["w"] * 1e6)
        self.end = self.begin + int(options["m"] * 1e6)
        streams, probes = int(options["c"]), int(options["q"])
        tasks = [asyncio.ensure_future(self._keep(i / streams * options["w"] * 0.6, 10**6)) for i in range(streams)]
        tasks += [asyncio.ensure_future(self._keep(options["w"] * 0.6, int(options["Q"]))) for _ in range(probes)]
        for word, at in (("begin", self.begin), ("end", self.end)):
            await asyncio.sleep((at - now_microseconds()) / 1e6)
            print(word, flush=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, delay: float, chunks: int) -> None:
        await asyncio.sleep(delay)
        is_probe = chunks < 10**6
        while True:
            try:
                await self._ask(chunks, is_probe=is_probe)
            except (OSError, EOFError) as exc:
                self.errors += 1
                self.first_error = self.first_error or type(exc).__name__
            await asyncio.sleep(self.options["t"] / 1000)

    async def _ask(self, chunks: int, *, is_probe: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.options["p"]))
        rate = 0 if is_probe else self.options["r"]
        content = f"Tell me something about streams, bench:n={chunks},rate={rate:g},stamp={self.options['S']:g};"
        body = json.dumps({"model": "fake", "stream": True, "messages": [{"role": "user", "content": content}]})
        head = f"host: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        try:
            sent = now_microseconds()
            self.requests += self._counts(sent)
            writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{head}{body}".encode())
            await self._read(reader, sent, is_probe=is_probe)
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, sent: int, *, is_probe: bool) -> None:
        rest, is_first = b"", True
        while b"[DONE]" not in rest:
            if not (data := await reader.read(1 << 16)):
                raise EOFError
            rest += data
            end = 0
            for found in STAMP.finditer(rest):
                end = found.end()
                if is_first and sent >= self.begin and self._counts(now_microseconds()):
                    self.firsts.append(now_microseconds() - sent)
                if not is_probe and self._counts(now_microseconds()):
                    self.ages.append(age(found[1]))
                is_first = False
            rest = rest[max(end, len(rest) - 64) :]

    def _counts(self, at: int) -> bool:
        return self.begin <= at < self.end

    def result(self) -> dict[str, float | str]:
        return {
            "seconds": self.options["m"],
            "chunks": len(self.ages) * int(self.options["S"]),
            "requests": self.requests,
            "errors": self.errors,
            "first_error": self.first_error,
            "chunk_p50": percentile(self.ages, 0.5),
            "chunk_p99": percentile(self.ages, 0.99),
            "chunk_times": [percentile(self.ages, n / 100) for n in range(101)] if self.ages else [],
            "first_p50": percentile(self.firsts, 0.5),
            "first_p99": percentile(self.firsts, 0.99),
        }


def percentile(values: list[int], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1) + 0.5)] if values else -1


async def load(words: list[str]) -> None:
    options = {name.lstrip("-"): float(value) for name, value in zip(words[::2], words[1::2], strict=True)}
    client = Client(options)
    await client.run()
    print(json.dumps(client.result()), flush=True)


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "upstream" else load(sys.argv[2:]))
