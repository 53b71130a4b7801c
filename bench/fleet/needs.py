"""What so many streams need beside GPUs: cores of proxies, network, memory, connections. Sums, not a simulation."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adapters import ENDPOINTS
from adapters.base import Options
from bench.fleet.host import Cost
from bench.fleet.model import Shape
from bench.fleet.traffic import MIX, Mix
from bench.texts import ENGLISH
from proxy.benchmark.arrivals import RATES
from proxy.framing import EventFraming
from proxy.policy import Policy
from proxy.risk import RESPONSE_CATEGORIES, Risk, RiskLevel
from proxy.stream import Expected, ModeratedStream

# Of one core, as docs/performance.md has it: measured with the guard stubbed, a chunk of one token.
CHUNKS_A_CORE = 8000.0
RATE = sum(RATES) / 2
# How often each proxy's process asks each engine where it is, by Ray (`cluster.LOOK_SECONDS`), and what a call takes.
LOOK_SECONDS, CALL_SECONDS = 2.0, 1e-3
SAFE = Risk(RiskLevel.SAFE, RESPONSE_CATEGORIES[0], 0.99, 0.9, (0.99, 0.005, 0.005), (0.9,) + (0.1 / 7,) * 7)


@dataclass(frozen=True, slots=True)
class Need:
    streams: int
    engines: int
    cores: float  # of proxies
    memory: float  # bytes of keys and values
    api: float  # bits a second, from upstreams and to clients
    guard: float  # bits a second, between proxies and engines, both ways
    sockets: int  # of clients and upstreams
    links: int  # connections between proxies and engines
    looking: float  # cores that are busy with Ray calls alone


def need(streams: int, engine_streams: int, shape: Shape, sizes: tuple[float, float], guard_bytes: float) -> Need:
    """`sizes`: bytes of a chunk from the upstream, and to the client; `guard_bytes` of a question and its answer."""
    engines = -(-streams // engine_streams)
    cores = streams * RATE / CHUNKS_A_CORE
    processes = max(1, round(cores))
    return Need(
        streams=streams,
        engines=engines,
        cores=cores,
        memory=streams * mean_context(MIX) * shape.kv_bytes,
        api=streams * RATE * sum(sizes) * 8,
        guard=streams * RATE * guard_bytes * 8,
        sockets=2 * streams,
        links=processes * engines,
        looking=processes * engines / LOOK_SECONDS * CALL_SECONDS,
    )


def mean_context(mix: Mix) -> float:
    """Tokens of a stream somewhere in its answer."""
    dice = np.random.default_rng(0)
    prompts, answers = mix.prompt_tokens(dice, 100_000), mix.answer_tokens(dice, 100_000)
    return float(prompts.mean() + (answers**2).mean() / answers.mean() / 2)


def question_bytes(costs: Sequence[Cost]) -> float:
    """Of a token's question and answer."""
    alone = next(cost for cost in costs if cost.load.streams > 1 and cost.load.tokens == 1)
    return (alone.sent_bytes + alone.received_bytes) / alone.load.streams


def chunk_bytes(chunks: int = 200) -> tuple[float, float]:
    """Of a chunk of chat that holds one token: as it comes, and as it leaves with Weir's annotations."""
    stream = ModeratedStream(
        EventFraming(1 << 20), ENDPOINTS["/v1/chat/completions"].stream(Options(model="m")), Policy(), Expected()
    )
    came = left = 0
    for number in range(chunks):
        choice = {"index": 0, "delta": {"content": ENGLISH[4 * number : 4 * number + 4]}, "finish_reason": None}
        head = {"id": "chatcmpl-" + "a" * 29, "object": "chat.completion.chunk", "created": 1764400000}
        named = {"model": "gpt-4o-2024-08-06", "system_fingerprint": "fp_0123456789", "choices": [choice]}
        data = f"data: {json.dumps(head | named)}\n\n".encode()
        came += len(data)
        stream.receive_data(data)
        if batches := stream.tokens_to_classify():
            stream.receive_risks(batches, [[SAFE] * len(batch.ids) for batch in batches])
        left += len(stream.data_to_send())
    return came / chunks, left / chunks
