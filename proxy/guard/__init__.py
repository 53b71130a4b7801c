"""The guard: Qwen3Guard-Stream, its engine, and the door that the proxy knocks on.

`protocol` is what the rest of the proxy codes against and needs no torch. `service.start_guard` makes a
guard. `Qwen3GuardStream` is the model card's own API.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.guard.qwen3guard import Qwen3GuardStream

__all__ = ["Qwen3GuardStream"]


def __getattr__(name: str) -> Any:
    # Lazy, so that importing the protocol does not load torch.
    if name == "Qwen3GuardStream":
        from proxy.guard.qwen3guard import Qwen3GuardStream

        return Qwen3GuardStream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
