"""Whether the stages are compiled is told as it is."""

from importlib.util import find_spec

from proxy.compiled import is_compiled


def test_it_is_told_by_the_file_that_is_loaded() -> None:
    spec = find_spec("proxy.pump")
    assert spec is not None
    assert spec.origin is not None
    assert is_compiled() is spec.origin.endswith((".so", ".pyd"))
