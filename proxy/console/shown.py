"""What the console asks of whoever it shows: one application, or all workers of a server."""

from dataclasses import dataclass
from typing import Any, Protocol

from proxy.guard.protocol import Guard
from proxy.policies import Policies
from proxy.settings import Settings


@dataclass(frozen=True, slots=True)
class Scene:
    """What serves now."""

    settings: Settings
    policies: Policies
    guard: Guard


class Shown(Protocol):
    def scene(self) -> Scene:
        """Raises ApiError while there is no guard yet."""

    async def live(self) -> dict[str, Any]:
        """As `live.live_of`, and whether it is `draining`. Raises ApiError while there is no guard yet."""
