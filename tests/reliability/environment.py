"""What a `weir` of its own is started with."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting of Weir's; no busy machine is taken for a server that has too much to do."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
    return ours | {"WEIR_SERVER__MAX_LAG_SECONDS": "3600"} | more
