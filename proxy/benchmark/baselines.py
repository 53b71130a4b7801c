"""The two other ways to run Qwen3Guard-Stream, with transformers: a cache a stream, and the model card's own.

Their weights are random and only their time is looked at. Both judge one stream at a time, as they do where
they are used, and end with the risk heads and the row on the host, as Weir does.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen3Config, Qwen3Model

from proxy.benchmark.ways import NoRoom
from proxy.guard.loader import LoadedGuard


def make_backbone(loaded: LoadedGuard) -> Qwen3Model:
    """transformers' model in the shape, number format and device of a guard."""
    shape = loaded.model.architecture
    config = Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, max_position_embeddings=shape.window, rms_norm_eps=shape.norm_eps,
    )  # fmt: skip
    default = torch.get_default_dtype()
    torch.set_default_dtype(loaded.model.dtype)
    try:
        with torch.device(loaded.model.device):
            model = Qwen3Model(config)
    finally:
        torch.set_default_dtype(default)
    model.train(mode=False)
    return model


class Baseline:
    def __init__(self, loaded: LoadedGuard, backbone: Qwen3Model, context: int) -> None:
        self._guard, self._backbone, self._context = loaded.model, backbone, context
        ids = torch.arange(2 * context + 4096, device=loaded.model.device) % loaded.model.architecture.vocabulary
        self._ids = ids.unsqueeze(0)

    def _answer(self, hidden: Tensor) -> None:
        """hidden [tokens, hidden] of the tokens to judge."""
        self._guard.probabilities(hidden, self._guard.response).cpu()


class CacheWay(Baseline):
    """transformers with one DynamicCache a stream: reads a token once."""

    name = "cache"

    def __init__(self, loaded: LoadedGuard, backbone: Qwen3Model, context: int) -> None:
        super().__init__(loaded, backbone, context)
        self.caches: list[DynamicCache] = []

    @torch.inference_mode()
    def open(self, streams: int) -> None:
        """See `ways.Way`. The keys are made up: what they are does not change how long they take."""
        shape = self._guard.architecture
        size = (1, shape.kv_heads, self._context, shape.head_dim)
        try:
            for _ in range(len(self.caches), streams):
                cache = DynamicCache(config=self._backbone.config)
                for layer in range(shape.layers):
                    keys = torch.randn(size, device=self._guard.device, dtype=self._guard.dtype)
                    cache.update(keys, keys.clone(), layer)
                self.caches.append(cache)
        except torch.OutOfMemoryError as exc:
            raise NoRoom(f"{streams} caches of {self._context} tokens") from exc
        self.work({0: 1})
        for cache in self.caches:
            if more := cache.get_seq_length() - self._context:
                cache.crop(-more)

    @torch.inference_mode()
    def work(self, waiting: Mapping[int, int]) -> dict[int, int]:
        """All that waits in the stream that waits longest."""
        stream, tokens = next(iter(waiting.items()))
        hidden = self._backbone(self._ids[:, :tokens], past_key_values=self.caches[stream]).last_hidden_state
        self._answer(hidden[0])
        return {stream: tokens}

    def close(self) -> None:
        self.caches.clear()


class RefeedWay(Baseline):
    """The model card's loop: reads the whole text again for every token."""

    name = "re-feed"

    def __init__(self, loaded: LoadedGuard, backbone: Qwen3Model, context: int) -> None:
        super().__init__(loaded, backbone, context)
        self.lengths: list[int] = []

    def open(self, streams: int) -> None:
        """See `ways.Way`."""
        self.lengths = [self._context] * max(streams, len(self.lengths))
        self.work({0: 1})
        self.lengths[0] = self._context

    @torch.inference_mode()
    def work(self, waiting: Mapping[int, int]) -> dict[int, int]:
        """One token of the stream that waits longest."""
        stream = next(iter(waiting))
        self.lengths[stream] += 1
        hidden = self._backbone(self._ids[:, : self.lengths[stream]], use_cache=False).last_hidden_state
        self._answer(hidden[0, -1:])
        return {stream: 1}

    def close(self) -> None:
        self.lengths.clear()
