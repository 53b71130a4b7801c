"""A guard on vLLM itself, on a CPU: `make vllm` runs it. Over a script: test_vllm_reader.py and test_vllm_worker.py."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.export import export
from proxy.guard.answer import classify
from proxy.guard.files import find_files
from proxy.guard.loader import load_guard
from proxy.guard.process import Config, ProcessGuard, VllmGuard, start_process_guard
from proxy.guard.service import LocalGuard
from proxy.guard.settings import GREETING
from proxy.guard.wire import PULSE_SECONDS
from proxy.guards import open_guard
from proxy.risk import Risk
from proxy.settings import GuardSettings, Settings
from tests.crews import children, until_dead
from tests.guard.checkpoints import random_ids, small_checkpoint
from tests.guard.conformance import TIGHT, Text, settings_of, words
from tests.guard.driver import distance, rows_of
from tests.guard.real_vllm import KV_BYTES, WITH_VLLM, WITHOUT, on_vllm

if not WITH_VLLM:
    pytest.skip(WITHOUT, allow_module_level=True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from proxy.guard.vllm_engine import CPU_BLOCK_TOKENS, arguments_of, dtype_of

WINDOW = 2048


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded guard, as a checkpoint."""
    path = tmp_path_factory.mktemp("guard") / "embedded"
    export(path, force=False)
    return path


def config_of(folder: Path, **arguments: Any) -> Config:
    return on_vllm(Config(str(folder), settings_of(window=WINDOW)), **arguments)


@asynccontextmanager
async def running(folder: Path, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> AsyncIterator[ProcessGuard]:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    guard = await start_process_guard(config_of(folder, **arguments), VllmGuard)
    try:
        yield guard
    finally:
        await guard.close()


async def judged(guard: Any, ids: list[int], prompt: int) -> list[Risk]:
    """A prompt's end, and an answer by four tokens."""
    stream, risks = await guard.open(ids[:prompt], read=[prompt - 2])
    for at in range(prompt, len(ids), 4):
        risks += await classify(stream, at, ids[at : at + 4])
    await stream.close()
    return list(risks)


async def test_the_embedded_guard_on_vllm_says_what_it_says_on_our_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [*GREETING, *random_ids(400, vocabulary=150_000)]
    ours = LocalGuard(load_guard(str(folder)), settings_of(window=WINDOW))
    expected = await judged(ours, ids, 100)
    await ours.close()
    async with running(folder, monkeypatch) as guard:
        assert (guard.info.model, guard.info.window) == ("embedded", WINDOW)
        found = await judged(guard, ids, 100)
        assert distance(rows_of(found[:1]), rows_of(expected[:1])) < TIGHT
        assert distance(rows_of(found[1:]), rows_of(expected[1:])) < TIGHT
        await what_is_new_is_what_it_costs(guard)
        await its_processes_may_die(guard, ids, expected)


async def what_is_new_is_what_it_costs(guard: ProcessGuard) -> None:
    """Four tokens behind a long text, beside that text for the first time."""
    ids = random_ids(WINDOW, 1, 150_000)
    started = time.perf_counter()
    stream, _ = await guard.open(ids[: WINDOW - 400])
    whole = time.perf_counter() - started
    seconds = []
    for at in range(WINDOW - 400, WINDOW, 4):
        started = time.perf_counter()
        await classify(stream, at, ids[at : at + 4])
        seconds.append(time.perf_counter() - started)
    increment = sorted(seconds)[len(seconds) // 2]
    print(f"{WINDOW - 400} tokens: {whole * 1e3:.1f} ms; 4 more: {increment * 1e3:.1f} ms, {whole / increment:.0f}:1")
    assert increment < whole / 3
    again = guard.metrics().replayed_tokens
    for _ in range(3):  # the worker tells every second
        await guard.health()
    questions = guard.metrics().lag_seconds.count
    assert again < CPU_BLOCK_TOKENS * questions
    await stream.close()


async def its_processes_may_die(guard: ProcessGuard, ids: list[int], expected: list[Risk]) -> None:
    """vLLM's engine first, then the worker itself; neither leaves a process."""
    stream, _ = await guard.open(ids[:100])
    for at, kill in ((100, _kill_core), (104, _kill_worker)):
        group = _group(guard.pid)
        kill(guard.pid)
        found = await classify(stream, at, ids[at : at + 4])
        assert distance(rows_of(found), rows_of(expected[1 + at - 100 : 5 + at - 100])) < TIGHT
        await until_dead(group)
    await stream.close()


def _group(pid: int, *more: str) -> list[int]:
    done = subprocess.run(["pgrep", "-g", str(pid), *more], capture_output=True, text=True, check=True)
    return [int(one) for one in done.stdout.split()]


def _kill_core(pid: int) -> None:
    (core,) = _group(pid, "-f", "VLLM::EngineCore")
    os.kill(core, signal.SIGKILL)


def _kill_worker(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


CORES = sorted(os.sched_getaffinity(0))


# Each rank is bound to a core of its own here, as vLLM wants its ranks on a CPU.
@pytest.mark.skipif(len(CORES) < 2, reason="each of two ranks needs a core")
@pytest.mark.parametrize(
    "arguments",
    [
        # Prompts are read in pieces.
        {"tensor_parallel_size": 2, "max_num_batched_tokens": 64, "max_num_seqs": 32},
        # Two ranks with room for six texts each.
        {"data_parallel_size": 2, "kv_cache_memory_bytes": 2 << 20},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
async def test_many_streams_on_two_ranks_are_judged_as_by_one_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, int]
) -> None:
    # vLLM leaves a core to its own loop, and then has too few of two.
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", f"{CORES[0]}|{CORES[1]}")
    text = Text(tmp_path / "small")

    async def judge(guard: ProcessGuard, ids: list[int]) -> float:
        stream, risks = await guard.open(ids[:200], read=[10, 199])
        fork = stream.fork()
        prompt = text.reference.rows(ids[:200], "query_")
        worst = distance(rows_of(risks), [prompt[10], prompt[199]])
        found: list[Risk] = []
        for at in range(200, 300, 5):
            found += await classify(fork, at, ids[at : at + 5])
        for each in (stream, fork):
            await each.close()
        return max(worst, distance(rows_of(found), text.reference.rows(ids)[200:]))

    async with running(text.folder, monkeypatch, **arguments) as guard:
        worst = await asyncio.gather(*(judge(guard, words(300, seed)) for seed in range(24)))
        assert max(worst) < TIGHT
        await asyncio.sleep(2 * PULSE_SECONDS)
        found = guard.metrics()
        again = found.replayed_tokens / found.lag_seconds.count
        print(f"{arguments}: {again:.1f} tokens a question were computed once more")
        if "tensor_parallel_size" in arguments:
            assert again < CPU_BLOCK_TOKENS


def serving(folder: Path, address: str) -> "subprocess.Popen[bytes]":
    environ = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "WEIR_VLLM")}
    given = {"BACKEND": "vllm", "WINDOW": str(WINDOW), "KV_BYTES": str(KV_BYTES), "VLLM__ENFORCE_EAGER": "true"}
    environ |= {f"WEIR_GUARD__{name}": value for name, value in given.items()}
    command = [sys.executable, "-m", "proxy", "guard", "serve", "--guard", str(folder), "--guard-address", address]
    return subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


async def test_a_worker_that_is_served_is_a_replica(folder: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's'}"
    with serving(folder, address) as process:
        assert process.stderr is not None
        while b"weir guard: ready at unix:" not in (line := process.stderr.readline()):
            assert line, "it ended before it was ready"
        reading = asyncio.get_running_loop().run_in_executor(None, process.stderr.read)
        wanted = GuardSettings(replicas=(address,), verdict_seconds=60.0)
        guard = await open_guard(Settings(guard=wanted))
        stream, _ = await guard.open(GREETING, read=[4])
        assert len(await classify(stream, len(GREETING), [198, 9707])) == 2
        await stream.close()
        await guard.close()
        (worker,) = children(process.pid)
        group = _group(worker)
        assert len(group) >= 3
        process.terminate()
        await reading
        assert process.wait(60) == 0
        await until_dead(group)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "x", "enable_prefix_caching": False}, "enable_prefix_caching, model: Weir sets that itself"),
        ({"tensor_paralel_size": 2}, "tensor_paralel_size: vLLM has no such engine argument"),
    ],
)
def test_arguments_that_cannot_be_passed_on_are_named(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    folder = small_checkpoint(tmp_path / "small", head_dim=32)
    files = find_files(str(folder), None, {})
    with pytest.raises(ValueError, match=said):
        arguments_of(config_of(folder, **arguments), files, WINDOW)


def test_what_is_set_is_passed_on(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "small", head_dim=32)
    found = arguments_of(config_of(folder, tensor_parallel_size=2, block_size=64), find_files(str(folder), None, {}), 9)
    assert (found["tensor_parallel_size"], found["block_size"], found["max_model_len"]) == (2, 64, 9)
    assert (found["dtype"], found["trust_remote_code"], found["load_format"]) == ("float32", False, "safetensors")
    assert arguments_of(config_of(folder), find_files(str(folder), None, {}), 9)["block_size"] == CPU_BLOCK_TOKENS


def test_what_is_stored_in_32_bits_is_computed_in_32() -> None:
    assert dtype_of("auto", {}) == "float32"
    assert dtype_of("auto", {"torch_dtype": "float32"}) == "float32"
    assert dtype_of("auto", {"torch_dtype": "bfloat16"}) == "auto"
    assert dtype_of("auto", {"dtype": "bfloat16", "torch_dtype": "float32"}) == "auto"
    assert dtype_of("float16", {}) == "float16"
    with pytest.raises(ValueError, match="int8 is our own engine's"):
        dtype_of("int8", {})
