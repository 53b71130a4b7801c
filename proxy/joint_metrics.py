"""Numbers of several processes as one: what each counts is added up, those that have died included."""

from collections.abc import Iterable, Iterator

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

# What all of them say of the one engine that they share, but for their own waits at its door.
ENGINE, DOOR = "weir_engine_", "weir_engine_door_"
# Of these, too, the highest is the one that counts.
WORST = frozenset({"weir_loop_lag_worst_seconds"})
GROWING = frozenset({"counter", "histogram"})


class Sample(msgspec.Struct, frozen=True):
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Family(msgspec.Struct, frozen=True):
    """One metric of one process: its kind is Prometheus' word for it."""

    name: str
    said: str
    kind: str
    samples: list[Sample]


def family(name: str, said: str, kind: str, value: float) -> Family:
    """Of one number without labels."""
    return Family(name, said, kind, [Sample(f"{name}_total" if kind == "counter" else name, (), value)])


def read_families(registry: CollectorRegistry) -> list[Family]:
    """What a process tells of itself."""
    return [
        Family(
            found.name,
            found.documentation,
            found.type,
            [Sample(one.name, tuple(one.labels.items()), one.value) for one in found.samples],
        )
        for found in registry.collect()
    ]


class JointMetrics(Collector):
    """Adds up. What a process had counted when it was last asked stays when it is gone: a counter never falls."""

    def __init__(self) -> None:
        self._gone: list[Family] = []
        self._now: list[Family] = []

    def retire(self, families: Iterable[Family]) -> None:
        """The last words of a process that is gone."""
        growing = [one for one in families if one.kind in GROWING and not _is_shared(one)]
        self._gone = list(_merged([*self._gone, *growing]))

    def add_up(self, families: Iterable[Family]) -> None:
        """With what those processes that are there say now."""
        self._now = list(_merged([*self._gone, *families]))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        for family in self._now:
            metric = Metric(family.name, family.said, family.kind)
            for sample in family.samples:
                metric.add_sample(sample.name, dict(sample.labels), sample.value)
            yield metric


def _is_shared(family: Family) -> bool:
    return family.name.startswith(ENGINE) and not family.name.startswith(DOOR)


def _merged(families: Iterable[Family]) -> Iterator[Family]:
    first: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in families:
        first.setdefault(family.name, family)
        is_highest = family.name in WORST or _is_shared(family)
        found = values.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, sample.labels)
            before = found.get(key, 0.0)
            found[key] = max(before, sample.value) if is_highest else before + sample.value
    for name, family in first.items():
        samples = [Sample(*key, value) for key, value in values[name].items()]
        yield Family(name, family.said, family.kind, samples)
