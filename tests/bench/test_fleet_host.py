"""What an engine's host does for a question is measured on the real server, and the fit finds its parts."""

import pytest

from bench.fleet.host import Cost, Fit, Load, fit, measure
from proxy.guard.rows import row_bytes
from proxy.risk import Role


def test_every_question_is_answered_whoever_asks() -> None:
    one, many = measure([Load(6, 2), Load(6, 2, proxies=3)], rounds=2)
    assert 0 < one.seconds < 10
    assert one.received_bytes >= 6 * 2 * row_bytes(Role.ASSISTANT)
    assert many.sent_bytes > one.sent_bytes  # three messages instead of one


def test_the_fit_finds_the_parts() -> None:
    true = Fit(1e-4, 1e-5, 1e-6)
    loads = [Load(1), Load(64), Load(512), Load(64, 4), Load(64, 1, proxies=64)]
    costs = [Cost(load, true.seconds(load) * load.proxies, 0, 0) for load in loads]
    found = fit(costs)
    assert (found.step, found.question, found.token) == pytest.approx((1e-4, 1e-5, 1e-6))
