"""Figures become JSON."""

import json

from proxy.benchmark.figures import Capacity, Figures, TokenTime


def test_figures_are_json() -> None:
    figures = Figures({"guard": "tiny"}, tokens=[TokenTime(64, {"weir": 0.5}, {"weir": 0.4})])
    figures.capacity.append(Capacity(512, "weir", 3, 12.5, "lag"))
    found = json.loads(json.dumps(figures.as_dict()))
    assert found["tokens"] == [{"history": 64, "ms": {"weir": 0.5}, "core_ms": {"weir": 0.4}}]
    assert found["capacity"][0]["streams"] == 3
    assert found["steps"] == found["door"] == found["skipped"] == []
