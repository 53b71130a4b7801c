"""The GPU's runner beside transformers' forward and beside the CPU's runner.

On a GPU if there is one, graphs and all; else in triton's interpreter, which runs the same kernels and the
same padded buckets, one call at a time.
"""

import random
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from proxy.guard.cache import Change
from proxy.guard.limits import Limits
from proxy.guard.model import GuardModel
from proxy.guard.paged_runner import PagedRunner
from proxy.guard.pages import PAGE_TOKENS
from proxy.guard.protocol import GuardError, GuardFault, GuardOutOfMemory, GuardUnavailable
from proxy.guard.random_weights import random_guard
from proxy.guard.sequence import Chunk
from tests.guard.checkpoints import random_ids, small_config
from tests.guard.driver import Driver, Small, distance, with_nan

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU: graphs, bfloat16 and the device's memory")
LIMITS = Limits(piece=64, short=16, step=64)
TIGHT = 1e-5
# Of probabilities, with keys and values in e4m3 (3 bits of fraction) and lively random weights: measured on four
# texts up to 0.08, and up to 0.0064 on average.
FP8_LARGEST, FP8_MEAN = 0.16, 0.013
BF16_LARGEST = 0.1


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("guard"))


@pytest.fixture(scope="module")
def model(small: Small) -> GuardModel:
    return small.load(DEVICE).model


def paged(
    model: GuardModel, budget_tokens: int = 8192, limits: Limits = LIMITS, kv_dtype: str = "auto", graphs: bool = True
) -> Driver:
    runner = PagedRunner(model, limits=limits, kv_dtype=kv_dtype, cuda_graphs=graphs)
    return Driver(model, budget_tokens, limits, runner)


def mean_distance(found: list[list[float]], expected: list[list[float]]) -> float:
    return float((torch.tensor(found) - torch.tensor(expected)).abs().mean())


def test_whole_and_token_by_token_equal_one_clean_forward(small: Small, model: GuardModel) -> None:
    ids = random_ids(140)
    driver = paged(model)
    stream, ticket = driver.open(ids[:100], read=[40, 99])
    prompt = small.reference.rows(ids[:100], "query_")
    assert distance(driver.rows(ticket), [prompt[40], prompt[99]]) < TIGHT
    expected = small.reference.rows(ids)
    assert distance(driver.rows(driver.feed(stream, 100, ids[100:])), expected[100:]) < TIGHT
    # Across the end of a page.
    one_by_one = [driver.rows(driver.feed(stream, 124 + i, [token]))[0] for i, token in enumerate(ids[124:132])]
    assert distance(one_by_one, expected[124:132]) < TIGHT


def test_ragged_mixed_batches_equal_one_clean_forward_each(small: Small, model: GuardModel) -> None:
    driver = paged(model)
    dice = random.Random(1)
    texts = [random_ids(dice.randint(30, 100), seed) for seed in range(5)]
    streams = [driver.open(text[:20], owner=f"key {number % 3}")[0] for number, text in enumerate(texts)]
    fed = [20] * len(texts)
    found: list[list[list[float]]] = [[] for _ in texts]
    while any(at < len(text) for at, text in zip(fed, texts, strict=True)):
        tickets = {}
        for number, text in enumerate(texts):
            if fed[number] < len(text) and dice.random() < 0.8:
                chunk = text[fed[number] :][: dice.choice([1, 2, 3, 7, 9, 40, 100])]
                tickets[number] = driver.feed(streams[number], fed[number], chunk)
                fed[number] += len(chunk)
        for number, ticket in tickets.items():
            found[number] += driver.rows(ticket)
    for text, rows in zip(texts, found, strict=True):
        assert distance(rows, small.reference.rows(text)[20:]) < TIGHT


def test_forks_share_their_past_and_go_separate_ways(small: Small, model: GuardModel) -> None:
    ids = random_ids(70)
    driver = paged(model)
    parent, _ = driver.open(ids)
    driver.run()
    before = driver.engine.metrics().kv_held_bytes
    children = [driver.fork(parent, 70) for _ in range(2)]
    assert driver.engine.metrics().kv_held_bytes == before
    tails = [random_ids(5, seed) for seed in range(1, 4)]
    for _ in range(2):
        # All three write in the same step, the second time after a rewind.
        tickets = [driver.feed(stream, 70, tail) for stream, tail in zip([parent, *children], tails, strict=True)]
        for ticket, tail in zip(tickets, tails, strict=True):
            assert distance(driver.rows(ticket), small.reference.rows(ids + tail)[70:]) < TIGHT
    driver.close(parent)
    ticket = driver.feed(children[0], 75, tails[0])
    assert distance(driver.rows(ticket), small.reference.rows(ids + tails[1] + tails[0])[75:]) < TIGHT


def test_rewind_takes_tokens_back(small: Small, model: GuardModel) -> None:
    ids, other = random_ids(100), random_ids(20, seed=1)
    driver = paged(model)
    stream, _ = driver.open(ids)
    child = driver.fork(stream, 100)
    ticket = driver.feed(stream, 40, other)
    assert distance(driver.rows(ticket), small.reference.rows(ids[:40] + other)[40:]) < TIGHT
    ticket = driver.feed(child, 100, other[:2])
    assert distance(driver.rows(ticket), small.reference.rows(ids + other[:2])[100:]) < TIGHT


def test_a_batch_of_64_judges_as_the_cpu_does(tmp_path: Path) -> None:
    small = Small(tmp_path, num_hidden_layers=1)
    model = small.load(DEVICE).model
    texts = [random_ids(4 + seed % 2, seed) for seed in range(64)]
    drivers = [paged(model, limits=Limits(piece=64, short=16, step=128)), small.engine()]
    found = []
    for driver in drivers:
        streams = [driver.open(text[:3])[0] for text in texts]
        driver.run()
        tickets = [driver.feed(stream, 3, text[3:]) for stream, text in zip(streams, texts, strict=True)]
        found.append([driver.rows(ticket) for ticket in tickets])
        assert driver.engine.metrics().last_batch == 64
    assert all(distance(a, b) < TIGHT for a, b in zip(*found, strict=True))


def test_evicted_streams_are_replayed_and_judge_the_same(small: Small, model: GuardModel) -> None:
    driver = paged(model, budget_tokens=128, limits=Limits(piece=64, short=16, step=64, idle_seconds=0.0))
    texts = [random_ids(70, seed) for seed in range(2)]
    streams = [driver.open(text[:65])[0] for text in texts]
    driver.run()
    for stream, text in zip(streams, texts, strict=True):
        assert distance(driver.rows(driver.feed(stream, 65, text[65:])), small.reference.rows(text)[65:]) < TIGHT
    metrics = driver.engine.metrics()
    assert metrics.evictions >= 2
    assert metrics.kv_slab_bytes <= metrics.kv_budget_bytes


def test_nothing_is_left_after_closing_and_a_restart_keeps_the_pool(small: Small, model: GuardModel) -> None:
    driver = paged(model)
    stream, _ = driver.open(random_ids(20))
    driver.run()
    driver.engine.restart(GuardError("device lost"))
    ticket = driver.feed(stream, 20, [1])
    assert distance(driver.rows(ticket), small.reference.rows([*random_ids(20), 1])[20:]) < TIGHT
    driver.close(stream)
    assert driver.engine.metrics().kv_held_bytes == 0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of numbers that are not finite
def test_numbers_that_are_not_finite_fail_their_stream_only(small: Small, model: GuardModel) -> None:
    driver = paged(with_nan(model, 7))
    clean = [token for token in random_ids(40) if token != 7][:30]
    streams = [driver.open(clean[:25])[0] for _ in range(2)]
    driver.run()
    bad, good = driver.feed(streams[0], 25, [7]), driver.feed(streams[1], 25, clean[25:])
    driver.run()
    assert isinstance(driver.answers[bad].error, GuardFault)
    expected = small.reference.rows(clean)[25:]
    assert distance(driver.rows(good), expected) < TIGHT
    # The failed stream goes on from before the token; the pages it left poison nobody who gets them next.
    for stream in (streams[0], driver.open(clean[:25])[0]):
        assert distance(driver.rows(driver.feed(stream, 25, clean[25:])), expected) < TIGHT


def test_eight_bit_memory_stays_within_its_tolerance(small: Small, model: GuardModel) -> None:
    ids = random_ids(110)
    driver = paged(model, kv_dtype="fp8")
    stream, _ = driver.open(ids[:60])
    found = driver.rows(driver.feed(stream, 60, ids[60:]))
    expected = small.reference.rows(ids)[60:]
    assert distance(found, expected) < FP8_LARGEST
    assert mean_distance(found, expected) < FP8_MEAN
    runner = PagedRunner(model, kv_dtype="fp8")
    assert runner.kv_bytes_per_token * 4 == PagedRunner(model).kv_bytes_per_token


def test_other_shapes_of_heads(tmp_path_factory: pytest.TempPathFactory) -> None:
    for kv_heads in (1, 4):
        folder = tmp_path_factory.mktemp(str(kv_heads))
        small = Small(folder, num_key_value_heads=kv_heads, attention_bias=True, num_hidden_layers=1)
        driver = paged(small.load(DEVICE).model)
        text = random_ids(35)
        stream, _ = driver.open(text[:25])
        assert distance(driver.rows(driver.feed(stream, 25, text[25:])), small.reference.rows(text)[25:]) < TIGHT


class Failing(PagedRunner):
    """Its device fails when it meets the id 7."""

    error: Exception = torch.OutOfMemoryError("CUDA out of memory")

    def run(self, chunks: Sequence[Chunk]) -> list[bytes | GuardError]:
        if any(7 in chunk.sequence.ids[chunk.start :] for chunk in chunks):
            with self._on_device():
                raise self.error
        return super().run(chunks)


def failing(model: GuardModel) -> tuple[Failing, Driver]:
    runner = Failing(model, limits=LIMITS, cuda_graphs=False)
    return runner, Driver(model, 4096, LIMITS, runner)


def test_who_finds_no_memory_alone_fails_alone(model: GuardModel) -> None:
    _, driver = failing(model)
    streams = [driver.open([1, 2, 3])[0] for _ in range(3)]
    driver.run()
    tickets = [driver.feed(stream, 3, [token]) for stream, token in zip(streams, (5, 7, 9), strict=True)]
    driver.run()
    errors = [driver.answers[ticket].error for ticket in tickets]
    assert [type(error) for error in errors] == [type(None), GuardOutOfMemory, type(None)]


def test_a_lost_device_is_a_crash_of_the_engine(model: GuardModel) -> None:
    runner, driver = failing(model)
    runner.error = torch.AcceleratorError("an illegal memory access was encountered")
    driver.feed(driver.open([1, 2, 3])[0], 3, [7])
    with pytest.raises(GuardUnavailable, match="the GPU failed: an illegal memory access"):
        driver.run()


def test_bytes_budgets_and_pages(model: GuardModel) -> None:
    runner = PagedRunner(model)
    assert runner.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4
    assert runner.default_budget_bytes() >= 64 << 20
    assert runner.tokens_in(runner.kv_bytes_per_token * 200) == 3 * PAGE_TOKENS
    with pytest.raises(ValueError, match="hold 128 tokens, not 200"):
        runner.new_cache(runner.kv_bytes_per_token * 191, 200)
    runner.use_threads(1)
    changes: list[Change] = []
    runner.new_cache(runner.kv_bytes_per_token * 128, 100)
    runner.prepare(changes)


@needs_gpu
def test_graphs_judge_as_single_calls_do(small: Small, model: GuardModel) -> None:
    ids = random_ids(200)
    found = []
    for graphs in (True, False):
        driver = paged(model, graphs=graphs)
        stream, _ = driver.open(ids[:100])
        rows = driver.rows(driver.feed(stream, 100, ids[100:150]))
        found.append(rows + [driver.rows(driver.feed(stream, 150 + i, [id]))[0] for i, id in enumerate(ids[150:])])
    assert distance(*found) < TIGHT
    assert distance(found[0], small.reference.rows(ids)[100:]) < TIGHT


@needs_gpu
@pytest.mark.parametrize("kv_dtype", ["auto", "fp8"])
def test_bfloat16_stays_near_float32(small: Small, kv_dtype: str) -> None:
    ids = random_ids(300)
    driver = paged(small.load("cuda", "bfloat16").model, kv_dtype=kv_dtype)
    stream, _ = driver.open(ids[:100])
    found = driver.rows(driver.feed(stream, 100, ids[100:]))
    expected = small.reference.rows(ids)[100:]
    assert distance(found, expected) < (BF16_LARGEST if kv_dtype == "auto" else FP8_LARGEST)


@needs_gpu
def test_the_released_shape_judges_on_a_gpu_as_on_a_cpu() -> None:
    config = small_config(
        hidden_size=1024, num_attention_heads=16, num_key_value_heads=8, head_dim=128, intermediate_size=3072
    )
    loaded = random_guard(config, device="cpu", dtype="float32")
    text = random_ids(400)
    rows = []
    for driver in (Driver(loaded.model, 4096), paged(on_gpu(loaded.model), 4096, Limits())):
        stream, _ = driver.open(text[:300])
        rows.append(driver.rows(driver.feed(stream, 300, text[300:])))
    assert distance(*rows) < 1e-3


@needs_gpu
def test_memory_stays_flat() -> None:
    driver = paged(random_guard(small_config(), device="cuda").model, limits=Limits())
    levels = []
    for seed in range(40):
        stream, _ = driver.open(random_ids(300, seed))
        driver.rows(driver.feed(stream, 300, [1, 2, 3]))
        driver.close(stream)
        levels.append(torch.cuda.memory_allocated())
    assert len(set(levels[5:])) == 1


def on_gpu(model: GuardModel) -> GuardModel:
    """The same weights on the GPU."""

    def moved(part: object) -> dict[str, torch.Tensor]:
        tensors = {field.name: getattr(part, field.name) for field in fields(part)}  # type: ignore[arg-type]
        return {name: tensor.cuda() for name, tensor in tensors.items() if tensor is not None}

    layers = [replace(layer, **moved(layer)) for layer in model.layers]
    response, prompt = (replace(heads, **moved(heads)) for heads in (model.response, model.prompt))
    return GuardModel(model.architecture, model.embedding.cuda(), layers, model.final_norm.cuda(), response, prompt)
