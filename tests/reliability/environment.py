"""What a `weir` of its own is started with."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of Weir's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")} | more
