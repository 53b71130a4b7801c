"""What can be set of the guard: the section `[guard]`."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from proxy.setting_types import (
    MIB,
    Count,
    FileName,
    Line,
    Scalar,
    Seconds,
    Section,
    Sha256,
    ShortName,
    not_bool,
    spelled,
    words,
)

ADDRESSES = "must be unix:PATH or tcp://HOST:PORT"
URLS = "must start with http:// or https:// and name a host, without a password"
DEVICES = "must be auto, cpu, mps, cuda or cuda:N"

OnFailure = Literal["closed", "open"]
Backend = Literal["local", "ray", "remote-code", "sglang", "vllm"]
Address = Annotated[str, spelled(r"unix:.{1,100}|tcp://(\[[0-9A-Fa-f:.]+\]|[^:/\s]+):[0-9]{1,5}", ADDRESSES)]
Argument = Annotated[str, spelled(r"[a-z][a-z0-9_]{0,63}", "must be an engine argument of vLLM, such as block_size")]
# Backends that speak our own protocol, and so may run elsewhere.
SERVED = ("local", "vllm")


class GuardSettings(Section):
    """The model that judges every token."""

    model: Line = "embedded"
    """A hub id, a folder, or "embedded" (demo grade)."""
    revision: Line | None = None
    """Branch, tag or commit of a hub model."""
    sha256: dict[FileName, Sha256] = Field(default_factory=dict)
    """SHA-256 of each file that is read, such as "model.safetensors" = "..."; any other file stops the start."""
    device: Annotated[str, spelled(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", DEVICES)] = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Number format of the weights; int8 is the fastest on a CPU without bfloat16, and the coarsest."""
    threads: Annotated[Count, Field(ge=1, le=1024)] | None = None
    """Cores of the engine on a CPU; without it all but one, and all for a large step of a small guard."""
    process: bool = True
    """Run the engine in a process of its own, which is replaced should it die or hang; false: in a thread."""
    backend: Backend = "local"
    """What runs the model: Weir's own engine (local), or another one; see docs/guards.md."""
    trust_remote_code: bool = False
    """Let backend = "remote-code" run the Python code that comes with the model, with all that Weir may do."""
    ray_address: Line = "auto"
    """The Ray cluster of backend = "ray": HOST:PORT of its head, or auto for the one that this machine is part of."""
    ray_fleet: ShortName = "guard"
    """The name of the engines there that `weir guard up` has started."""
    sglang_url: Annotated[str, spelled(r"https?://[^\s/@]+(/[^\s@]*)?", URLS)] | None = None
    """The SGLang server of backend = "sglang"; `token` is its API key."""
    sglang_api: Literal["rid", "sessions"] = "sessions"
    """How it keeps a stream: by sessions of SGLang's mainline, or by request id on the branch of the model card."""
    vllm: dict[Argument, Scalar] = Field(default_factory=dict)
    """Engine arguments for backend = "vllm", such as tensor_parallel_size = 2; see docs/guards.md."""
    address: Address | None = None
    """Use the guard that `weir guard serve` runs there, unix:PATH or tcp://HOST:PORT, and load none."""
    replicas: Annotated[tuple[Address, ...], BeforeValidator(words), Field(max_length=1000)] = ()
    """Use several such guards, of one model: each has its share of the streams, and those of one that is gone move."""
    token: SecretStr | None = None
    """What a guard on a TCP address wants to hear, or an SGLang server's API key."""
    hang_seconds: Annotated[Seconds, Field(ge=1)] = 15.0
    """An engine's process that is silent for longer is killed and replaced; more for a large model on a slow CPU."""
    verdict_seconds: Seconds = 10.0
    """Deadline of a verdict; one that is late counts as a failure."""
    admission_seconds: Seconds = 5.0
    """Longest wait for room in the guard's key-value cache."""
    kv_share: Annotated[float, BeforeValidator(not_bool), Field(gt=0, le=0.95, allow_inf_nan=False)] | None = None
    """Share of the device's free memory for the key-value cache, where `kv_bytes` is not set."""
    kv_bytes: Annotated[Count, Field(ge=MIB)] | None = None
    """Memory of the key-value cache; without it, the engine's own choice."""
    kv_dtype: Literal["auto", "fp8"] = "auto"
    """Number format of the key-value cache; fp8 holds twice the streams, on a GPU only."""
    cuda_graphs: bool = True
    """On a GPU, run a step as one call; off only to look for faults."""
    kept_tokens: Annotated[Count, Field(ge=0)] = 0
    """Tokens of closed prompts whose key-value memory is kept for a minute, for the same key's next turn; 0: none."""
    window: Annotated[Count, Field(ge=256, le=1 << 20)] | None = None
    """Most tokens of one conversation; without it, what the model was made for."""
    folded_view: bool = False
    """Judge text as readers see it, too: invisible characters dropped, look-alike letters folded."""
    on_failure: OnFailure = "closed"
    """closed: an answer that cannot be judged ends as an error; open: it passes, labelled unscanned."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether somebody else loads the model, whatever `model` says."""
        return self.address is not None or bool(self.replicas) or self.backend in ("ray", "sglang")

    @property
    def is_in_a_thread(self) -> bool:
        """Whether the model is loaded into this process."""
        is_ours = self.backend == "local" and not self.is_elsewhere
        return self.backend == "remote-code" or (is_ours and not self.process)


def guard_faults(guard: GuardSettings) -> Iterator[tuple[str, str]]:
    """What is wrong between keys that are each right: one of them, and why it cannot stand."""
    yield from _misplaced(guard)
    if guard.backend == "remote-code":
        if not guard.trust_remote_code:
            yield "trust_remote_code", 'must be true for backend = "remote-code", which runs code that the model brings'
        if guard.model == "embedded":
            yield "model", 'must be a folder or a hub id for backend = "remote-code": the embedded guard has no code'
    if guard.backend == "sglang":
        if guard.sglang_url is None:
            yield "sglang_url", 'must name the server for backend = "sglang"'
        if guard.window is None:
            yield "window", 'must be set for backend = "sglang": at most the --context-length of its server'


def _misplaced(guard: GuardSettings) -> Iterator[tuple[str, str]]:
    for key, backends in (("address", SERVED), ("replicas", SERVED), ("vllm", ("vllm",))):
        if getattr(guard, key) and guard.backend not in backends:
            names = " or ".join(f'"{name}"' for name in backends)
            yield key, f'is for backend = {names}, and backend is "{guard.backend}"'
    if guard.address is not None and guard.replicas:
        yield "replicas", "cannot be set beside address: name that one among them"
