"""What /metrics tells, as an object that a page can draw. Totals only grow: whoever draws takes differences."""

import math
from collections import defaultdict
from typing import Any

from prometheus_client.metrics_core import Metric

from proxy.metrics import Metrics

# A counter's name in the object -> the family, and the label that it is told by; the other labels are summed up.
BY_LABEL = {
    "requests": ("weir_requests", "outcome"),
    "cuts": ("weir_flags", "category"),
    "errors": ("weir_errors", "code"),
    "characters": ("weir_characters", "state"),
}
HISTOGRAMS = {"guard_lag": "weir_guard_lag_seconds", "first_byte": "weir_first_byte_seconds"}
SINGLE = {"streams": "weir_streams", "tokens": "weir_tokens", "loop_lag_worst": "weir_loop_lag_worst_seconds"}
ENGINE = "weir_engine_"


def live_of(metrics: Metrics) -> dict[str, Any]:
    """Counters by one label, single numbers, and histograms as [upper bound or None, values up to it] in order."""
    families = {family.name: family for family in metrics.registry.collect()}
    found: dict[str, Any] = {key: _by_label(families[name], label) for key, (name, label) in BY_LABEL.items()}
    found |= {key: _single(families[name]) for key, name in SINGLE.items()}
    found |= {key: _histogram(families[name]) for key, name in HISTOGRAMS.items()}
    engine = {name.removeprefix(ENGINE): family for name, family in families.items() if name.startswith(ENGINE)}
    return found | {"engine": {name: _single(one) for name, one in engine.items() if one.type != "histogram"}}


def _by_label(family: Metric, label: str) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            sums[sample.labels[label]] += sample.value
    return dict(sums)


def _single(family: Metric) -> float:
    return next(sample.value for sample in family.samples if not sample.name.endswith("_created"))


def _histogram(family: Metric) -> list[tuple[float | None, float]]:
    buckets = [(float(s.labels["le"]), s.value) for s in family.samples if s.name.endswith("_bucket")]
    return [(None if math.isinf(bound) else bound, count) for bound, count in sorted(buckets)]
