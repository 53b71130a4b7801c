"""What /metrics tells, as an object that a page can draw. Totals only grow: whoever draws takes differences."""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

# A counter's name in the object -> the family, and the label that it is told by; the other labels are summed up.
BY_LABEL = {
    "requests": ("weir_requests", "outcome"),
    "cuts": ("weir_flags", "category"),
    "errors": ("weir_errors", "code"),
    "characters": ("weir_characters", "state"),
}
HISTOGRAMS = {"guard_lag": "weir_guard_lag_seconds", "first_byte": "weir_first_byte_seconds"}
SINGLE = {"streams": "weir_streams", "tokens": "weir_tokens", "loop_lag_worst": "weir_loop_lag_worst_seconds"}
# Where several processes serve.
SEVERAL = {"workers": "weir_workers", "worker_deaths": "weir_worker_deaths"}
ENGINE = "weir_engine_"


def live_of(collected: Iterable[Metric]) -> dict[str, Any]:
    """Counters by one label, single numbers, and histograms as [upper bound or None, values up to it] in order."""
    families = {family.name: family for family in collected}
    found: dict[str, Any] = {key: _by_label(families.get(name), label) for key, (name, label) in BY_LABEL.items()}
    found |= {key: _single(families.get(name)) for key, name in SINGLE.items()}
    found |= {key: _histogram(families.get(name)) for key, name in HISTOGRAMS.items()}
    found |= {key: _single(families[name]) for key, name in SEVERAL.items() if name in families}
    engine = {name.removeprefix(ENGINE): family for name, family in families.items() if name.startswith(ENGINE)}
    return found | {"engine": {name: _single(one) for name, one in engine.items() if one.type != "histogram"}}


def _samples(family: Metric | None) -> list[Sample]:
    """None where nobody has told of it yet."""
    return [] if family is None else [one for one in family.samples if not one.name.endswith("_created")]


def _by_label(family: Metric | None, label: str) -> dict[str, float]:
    """Without those that nothing was counted of."""
    sums: defaultdict[str, float] = defaultdict(float)
    for sample in _samples(family):
        sums[sample.labels[label]] += sample.value
    return {key: value for key, value in sums.items() if value}


def _single(family: Metric | None) -> float:
    return next((sample.value for sample in _samples(family)), 0.0)


def _histogram(family: Metric | None) -> list[tuple[float | None, float]]:
    buckets = [(float(s.labels["le"]), s.value) for s in _samples(family) if s.name.endswith("_bucket")]
    return [(None if math.isinf(bound) else bound, count) for bound, count in sorted(buckets)]
