"""Numbers about an engine, for people and for monitoring."""

import msgspec


class Metrics(msgspec.Struct):
    """What the engine has done so far, and what it holds now."""

    streams: int = 0
    queue_depth: int = 0
    kv_held_bytes: int = 0  # of slots that streams hold
    kv_slab_bytes: int = 0  # taken from the device
    kv_budget_bytes: int = 0
    steps: int = 0
    tokens: int = 0
    last_batch: int = 0  # streams in the last step
    evictions: int = 0
    evicted_tokens: int = 0
    shared_tokens: int = 0  # of prompts, that were not computed again
    kept_tokens: int = 0  # of closed prompts, for their owner's next request
    refusals: int = 0
    faults: int = 0
    restarts: int = 0
