"""vLLM with a guard's checkpoint in it, for `vllm_worker`."""

import zlib
from collections.abc import Mapping
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.pooling_params import PoolingParams
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
from vllm.v1.engine.async_llm import AsyncLLM

from proxy.guard.architecture import Architecture
from proxy.guard.files import CheckpointError, Files
from proxy.guard.loader import check_files
from proxy.guard.process import Config
from proxy.guard.protocol import GuardInfo
from proxy.guard.vllm_plugin import ARCHITECTURE
from proxy.guard.vllm_reader import VllmReader, columns_of

# A text's last tokens, up to so many, are computed again with each question. What the CPU's kernels take at least.
CPU_BLOCK_TOKENS = 32
DTYPES = ("auto", "float32", "bfloat16", "float16")


class PinnedLLM(AsyncLLM):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """Of several ranks, a text is asked about at one: there its beginning is remembered."""

    async def add_request(self, request_id: str, prompt: Any, params: Any, **more: Any) -> Any:
        """As `AsyncLLM` has it; `encode` comes by here."""
        ranks = self.vllm_config.parallel_config.data_parallel_size
        if ranks > 1:
            more["data_parallel_rank"] = zlib.crc32(prompt["cache_salt"].encode()) % ranks
        return await super().add_request(request_id, prompt, params, **more)


class Engine:
    """A checkpoint in vLLM, which runs in processes of its own."""

    def __init__(self, config: Config, files: Files) -> None:
        """Blocks until it is there. Raises CheckpointError, ValueError, and whatever vLLM raises."""
        shape = check_files(files)
        if fault := fault_of(shape):
            raise CheckpointError(f"{files.name}: {fault}")
        window = min(config.settings.window or shape.window, shape.window)
        self.llm = PinnedLLM.from_engine_args(AsyncEngineArgs(**arguments_of(config, files, window)))
        self.reader = VllmReader(self.llm, params_of, columns_of(shape))
        self.info = GuardInfo(files.name, files.revision, window)
        self.vocabulary = shape.vocabulary

    def close(self) -> None:
        self.llm.shutdown(timeout=0)


def fault_of(shape: Architecture) -> str:
    """What vLLM would compute wrongly, or die of at the first text; empty where there is nothing."""
    if shape.attention_bias:
        return "its attention has biases everywhere, which vLLM's Qwen3 has not"
    if current_platform.is_cpu() and shape.head_dim not in (sizes := CPUAttentionBackend.get_supported_head_sizes()):
        return f"its heads are of {shape.head_dim}, and vLLM on a CPU has kernels for {', '.join(map(str, sizes))}"
    return ""


def params_of(is_fresh: bool) -> PoolingParams:
    # Without the second, vLLM itself leaves the cache aside for what wants a row a token.
    return PoolingParams(task="token_classify", use_activation=False, skip_reading_prefix_cache=is_fresh)


def arguments_of(config: Config, files: Files, window: int) -> dict[str, Any]:
    """Of `AsyncEngineArgs`: `[guard.vllm]`, and what a guard must have. Raises ValueError."""
    ours: dict[str, Any] = {
        "model": str(files.folder),
        "runner": "pooling",
        "dtype": dtype_of(config.dtype, files.config),
        "max_model_len": window,
        "skip_tokenizer_init": True,
        "enable_prefix_caching": True,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "hf_overrides": {"architectures": [ARCHITECTURE]},
        "enable_log_requests": False,
    }
    if taken := sorted(ours.keys() & config.vllm.keys()):
        raise ValueError(f"[guard.vllm] {', '.join(taken)}: Weir sets that itself")
    if unknown := sorted(config.vllm.keys() - AsyncEngineArgs.__dataclass_fields__.keys()):
        raise ValueError(f"[guard.vllm] {', '.join(unknown)}: vLLM has no such engine argument")
    return {**ours, **_defaults(config), **config.vllm}


def dtype_of(wanted: str, described: Mapping[str, Any]) -> str:
    """vLLM's "auto" makes 16 bits of what is stored in 32; ours does not. Raises ValueError."""
    if wanted not in DTYPES:
        raise ValueError(f"dtype {wanted} is our own engine's; vLLM takes {', '.join(DTYPES)}")
    stored = described.get("dtype", described.get("torch_dtype"))
    return "float32" if wanted == "auto" and stored in (None, "float32") else wanted


def _defaults(config: Config) -> Mapping[str, Any]:
    """What may be set otherwise."""
    found: dict[str, Any] = {"disable_log_stats": True}
    if current_platform.is_cpu():
        found["block_size"] = CPU_BLOCK_TOKENS
    if config.settings.kv_bytes is not None:
        found["kv_cache_memory_bytes"] = config.settings.kv_bytes
    if config.settings.kv_dtype != "auto":
        found["kv_cache_dtype"] = config.settings.kv_dtype
    return found
