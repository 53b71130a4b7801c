"""How long the property tests try (`make long`: pytest --times 100), what is written, and where the kernels run."""

import gc
import os

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    # The guard's kernels run in triton's interpreter then, which must be said before anything imports triton.
    os.environ["TRITON_INTERPRET"] = "1"

# To Weir, and to servers that tests start, each WEIR_ variable is a setting: tests/postgres.py finds its own elsewhere.
for name in ("WEIR_POSTGRES", "WEIR_POSTGRES_URL"):
    if name in os.environ:
        os.environ[f"TESTS_{name}"] = os.environ.pop(name)

# Machines are shared: a slow example is no failure. Half as many as usual; `make long` tries twenty times as many.
settings.register_profile("weir", deadline=None, max_examples=50)
settings.load_profile("weir")

# Where hypothesis keeps the settings of a decorated test; it has no public way to change them from outside.
SETTINGS = "_hypothesis_internal_use_settings"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=int, default=1, help="multiply the examples of every property test")
    parser.addoption("--write-docs", action="store_true", help="write docs/clients.md from what the clients show")


def pytest_collection_finish() -> None:
    """All tests stay to the end. Looking for garbage among them takes 0.2 s, in which the clocks of a test run on."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    times: int = config.getoption("--times")
    functions = {item.function for item in items if isinstance(item, pytest.Function)}
    for function in functions:
        if times > 1 and getattr(function, "is_hypothesis_test", False):
            usual: settings = getattr(function, SETTINGS, None) or settings()
            setattr(function, SETTINGS, settings(usual, max_examples=usual.max_examples * times))
