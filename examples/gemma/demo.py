"""A real model behind Weir: Gemma 3 270M on llama.cpp, streamed through the embedded guard with the openai client.

`make demo-real`, or: `python -m examples.gemma.demo ENVIRONMENT`, a virtual environment with requirements.txt in it.
Gemma is a base model: it continues text rather than answering, and what it says is its own.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from rich.console import Console
from rich.text import Text

from proxy.app import running
from proxy.demo import STYLES
from proxy.guards import open_guard
from proxy.server_settings import ServerSettings
from proxy.settings import GuardSettings, Settings, UpstreamSettings

SERVER = Path(__file__).parent / "llama.py"
# A model of 250 MB is read from a disk that may be slow.
START_SECONDS = 120.0
TEXTS = (
    "The history of fireworks begins in China, where",
    "Dear neighbours, our street party is next Saturday. Please bring",
    "El cielo es azul porque la luz del sol",
)
# The same text at each run, at 40 tokens; a small base model repeats itself unless it is told not to.
OPTIONS: dict[str, Any] = {
    "model": "gemma-3-270m",
    "max_tokens": 40,
    "temperature": 0,
    "seed": 1,
    "frequency_penalty": 1.0,
}


@dataclass
class Streamed:
    """One streamed completion: its text in the pieces that came, and what was said of it."""

    pieces: list[str] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)  # Weir's, beside each piece; empty without Weir
    finish: str = ""
    first_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@asynccontextmanager
async def llama(environment: Path) -> AsyncIterator[str]:
    """llama.cpp serving Gemma, as a process of `environment`; yields its base URL. Raises RuntimeError."""
    process = await asyncio.create_subprocess_exec(
        str(environment / "bin" / "python"),
        str(SERVER),
        str(environment / "model"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            url = (await process.stdout.readline()).decode().strip()
        if not url:
            raise RuntimeError(f"llama.cpp does not start: run {environment}/bin/python {SERVER} /tmp/model to see why")
        yield f"{url}/v1"
    finally:
        process.stdin.close()  # tells it to end
        await process.wait()


@asynccontextmanager
async def weir(upstream: str) -> AsyncIterator[str]:
    """Weir on the embedded guard before `upstream`; yields its base URL."""
    settings = Settings(
        server=ServerSettings(port=0), upstream=UpstreamSettings(base_url=upstream), guard=GuardSettings()
    )
    guard = await open_guard(settings)
    try:
        async with running(settings, guard) as port:
            yield f"http://127.0.0.1:{port}/v1"
    finally:
        await guard.close()


async def continued(url: str, text: str) -> Streamed:
    """Have `text` continued by whoever serves `url`."""
    streamed = Streamed()
    started = time.monotonic()
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        async for chunk in await client.completions.create(prompt=text, stream=True, **OPTIONS):
            note = (chunk.model_extra or {}).get("weir") or {}
            for choice in chunk.choices:
                streamed.first_seconds = streamed.first_seconds or time.monotonic() - started
                streamed.pieces.append(choice.text)
                streamed.levels.append(str(note.get("risk_level", "")))
                streamed.finish = choice.finish_reason or streamed.finish
    streamed.seconds = time.monotonic() - started
    return streamed


async def show(environment: Path, console: Console) -> int:
    console.print(
        "Starting llama.cpp with Gemma 3 270M (a base model), and Weir with the embedded guard (demo grade) ..."
    )
    async with llama(environment) as upstream, weir(upstream) as url:
        async with AsyncOpenAI(base_url=url, api_key="none") as client:
            console.print("Weir lists the upstream's models:", [model.id async for model in client.models.list()])
        for text in TEXTS:
            console.rule()
            direct = await continued(upstream, text)
            judged = await continued(url, text)
            console.print(Text(text, "bold"), end="")
            for piece, level in zip(judged.pieces, judged.levels, strict=True):
                console.print(Text(piece, STYLES.get(level, "")), end="")
            console.print(f"\n\n[{judged.finish}] {len(judged.pieces)} chunks in {judged.seconds:.1f} s", markup=False)
            console.print(f"first text after {judged.first_seconds:.2f} s; without Weir {direct.first_seconds:.2f} s")
            if judged.finish == "content_filter":
                console.print("Cut: the embedded guard found fault with it, rightly or not.")
            elif judged.text != direct.text:
                console.print("Not what llama.cpp said to the same question without Weir:", direct.text, style="red")
                return 1
            else:
                console.print("Character by character what llama.cpp says to the same question without Weir.")
    return 0


def main() -> int:
    return asyncio.run(show(Path(sys.argv[1]).absolute(), Console(highlight=False)))


if __name__ == "__main__":
    sys.exit(main())
