"""Whether the way of a chunk runs as machine code, and not as Python: see `hatch_build.py`."""

from importlib.util import find_spec


def is_compiled() -> bool:
    spec = find_spec("proxy.pump")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
