"""Servers in processes of their own, for the tests that measure or starve them."""

from collections.abc import Iterator

import pytest

from tests.reliability.apart import Servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    found = Servers()
    yield found
    found.close()
