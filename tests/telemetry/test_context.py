"""traceparent: what is read of it, what is written, and whose trace a request belongs to."""

from typing import Literal

import pytest

from proxy.telemetry.context import SpanContext, place_among, read_traceparent, sent_headers
from proxy.telemetry_settings import TelemetrySettings

# The example of the W3C recommendation.
TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CLIENT = SpanContext(TRACE, SPAN)


def test_it_is_read_and_written() -> None:
    assert read_traceparent([GIVEN]) == CLIENT
    assert CLIENT.traceparent == GIVEN
    assert read_traceparent([GIVEN[:-1] + "0"]) == SpanContext(TRACE, SPAN, is_sampled=False)
    assert SpanContext(1, 2, is_sampled=False).traceparent == f"00-{1:032x}-{2:016x}-00"


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert read_traceparent(["cc" + GIVEN[2:] + "-what.the.future.brings"]) == CLIENT


@pytest.mark.parametrize(
    "given",
    [
        [],
        [GIVEN, GIVEN],
        [""],
        ["ff" + GIVEN[2:]],
        [GIVEN + "-more"],
        [GIVEN.upper()],
        [GIVEN[:-1]],
        ["00-" + "0" * 32 + "-b7ad6b7169203331-01"],
        ["00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01"],
        ["00-1-2-01"],
        ["cc" + GIVEN[2:] + "-" + "x" * 1000],
    ],
)
def test_what_is_none_is_none(given: list[str]) -> None:
    assert read_traceparent(given) is None


def test_our_own_traces_are_sampled_by_share_and_a_clients_by_its_word() -> None:
    link = [place_among(CLIENT, TelemetrySettings(sample=0.5)) for _ in range(200)]
    assert 50 < sum(place.own.is_sampled for place in link) < 150
    assert all(place.parent is None and place.linked == CLIENT for place in link)
    assert len({place.own.trace_id for place in link} | {TRACE}) == 201
    joining = TelemetrySettings(sample=0.0, client_traces="join")
    assert place_among(CLIENT, joining).own.is_sampled
    assert place_among(CLIENT, joining).own.trace_id == TRACE
    assert not place_among(None, joining).own.is_sampled


@pytest.mark.parametrize(
    ("wanted", "is_joined", "sent"),
    [
        ("client", False, {"Traceparent": "c", "TraceState": "s"}),
        ("none", True, {}),
        ("own", False, {"traceparent": GIVEN}),
        ("own", True, {"traceparent": GIVEN, "TraceState": "s"}),
    ],
)
def test_headers_that_go_on(wanted: Literal["client", "own", "none"], is_joined: bool, sent: dict[str, str]) -> None:
    given = {"Traceparent": "c", "TraceState": "s", "x": "y"}
    assert sent_headers(given, wanted, CLIENT, is_joined=is_joined) == sent | {"x": "y"}
