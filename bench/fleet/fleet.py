"""A fleet of engines, what may happen to it, and what came of a run."""

from dataclasses import dataclass, field

import numpy as np

from bench.fleet.lags import Lags
from bench.fleet.model import H100, LIMITS, Ints, Machine, Numbers, Shape
from bench.fleet.placement import Placement, fewer_of_two


@dataclass(frozen=True, slots=True)
class Loss:
    """Engines that go, all of them at once."""

    at: float
    engines: int
    unnoticed: float = 0.0  # seconds until their proxies know; 0: a broken connection


@dataclass(frozen=True, slots=True)
class Scaling:
    """Adds engines when there are more streams than so many for each; a new one is there after a while."""

    target: float
    delay: float
    every: float = 5.0


@dataclass(frozen=True, slots=True)
class Fleet:
    shape: Shape
    engines: int  # that are there at the beginning
    machine: Machine = H100
    most: int = 0  # engines that there may ever be; 0: no more
    proxies: int = 8
    choose: Placement = fewer_of_two
    loss: Loss | None = None
    scaling: Scaling | None = None
    piece: int = LIMITS.piece
    step: int = LIMITS.step
    admission: float = LIMITS.admission_seconds
    groups: int = 1  # engines are told in so many groups, by their numbers


@dataclass(slots=True)
class Outcome:
    lags: Lags  # of answer tokens
    prompts: Lags
    offered: int = 0
    finished: int = 0
    open: int = 0  # when it was over
    judged: int = 0  # answer tokens
    refused: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # by group
    evicted: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # by group
    moved: int = 0  # streams of engines that were lost
    replayed_tokens: int = 0
    read_tokens: int = 0  # of prompts and replays
    engine_seconds: float = 0.0
    busy: Numbers = field(default_factory=lambda: np.zeros(0))  # seconds, by group
    hosted: Numbers = field(default_factory=lambda: np.zeros(0))  # of them on the host, by group
    fullest: Numbers = field(default_factory=lambda: np.zeros(0))  # share of the memory, by group
    alive: list[int] = field(default_factory=list)  # engines, by second
    streams: list[int] = field(default_factory=list)
    uneven: list[float] = field(default_factory=list)  # the most streams of an engine, of an average one's, by second
