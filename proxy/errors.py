"""Who is at fault, and the JSON body that says so in the shape of OpenAI's errors.

Every text here is ours: an upstream's or a library's message never reaches a client unread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from traceback import extract_tb
from typing import Any

from adapters.base import Failure
from proxy.guard.protocol import GuardError, GuardOverloaded, GuardTimeout
from proxy.limits import Limit

# Seconds after which a refused client may try again.
RETRY_AFTER_SECONDS = 1


@dataclass(slots=True)
class ApiError(Exception):
    """A request refused before any byte of an answer was sent."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)  # more keys of the error object
    limit: str = ""  # that was met; for metrics

    def body(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error | dict(self.extra)}


class Fault(Exception):
    """An answer under way cannot go on. `failure` is what the client is told, the text what the record keeps."""

    def __init__(self, failure: Failure, status: int, detail: str = "") -> None:
        super().__init__(detail or failure.message)
        self.failure = failure
        self.status = status  # where nothing was sent yet

    def api_error(self) -> ApiError:
        retry = {"retry-after": str(RETRY_AFTER_SECONDS)} if self.status == 503 else {}
        told = self.failure
        return ApiError(self.status, told.message, told.type, code=told.code, headers=retry, limit=told.limit)


class BrokenAnswer(ConnectionError):
    """What an upstream sent is not HTTP as it must be, or it ended too early."""


UNREADABLE = Failure("The upstream sent something that cannot be read.", code="upstream_unreadable")
UPSTREAM_FAILED = Failure("The upstream reported an error in the middle of its answer.", code="upstream_error")
UPSTREAM_ENDED = Failure("The upstream ended its answer early.", code="upstream_ended")
UPSTREAM_UNREACHABLE = Failure("The upstream cannot be reached.", code="upstream_unreachable")
UPSTREAM_UNCONNECTED = replace(UPSTREAM_UNREACHABLE, limit=Limit.CONNECT)
UPSTREAM_BUSY = Failure("No connection to the upstream became free in time.", code="overloaded", limit=Limit.POOL)
UPSTREAM_SLOW = Failure("The upstream did not answer in time.", code="upstream_timeout", limit=Limit.FIRST_BYTE)
UPSTREAM_SILENT = Failure("The upstream stopped sending.", code="upstream_timeout", limit=Limit.IDLE)
UPSTREAM_BROKE = Failure("The connection to the upstream broke in the middle of its answer.", code="upstream_ended")
UPSTREAM_ODD = Failure("The upstream answered in a form that cannot be judged.", code="upstream_unreadable")
TOO_LONG = Failure("The answer took longer than is allowed.", code="total_timeout", limit=Limit.TOTAL)
TOO_MUCH_HELD = Failure("The answer cannot be judged: too much of it waits.", code="held_too_much", limit=Limit.HELD)
GUARD_FAILED = Failure("The answer cannot be judged at the moment.", code="guard_unavailable")
TOO_MANY = Failure("Too many requests are running.", code="overloaded", limit=Limit.STREAMS)
TOO_LATE = Failure("The server has too much to do at the moment.", code="overloaded", limit=Limit.LAG)
BUSY = Failure("The server has too much to do at the moment.", code="overloaded", limit=Limit.ASIDE)
SHUTTING_DOWN = Failure("The server is shutting down.", code="shutting_down", limit=Limit.DRAIN)
INTERNAL = Failure("An internal error ended the answer.", code="internal_error")


def guard_failure(error: GuardError) -> Failure:
    """What is told where there is no verdict, and which limit was met, if that is why."""
    limits: dict[type[GuardError], str] = {GuardTimeout: Limit.VERDICT, GuardOverloaded: Limit.ADMISSION}
    return replace(GUARD_FAILED, limit=next((limit for kind, limit in limits.items() if isinstance(error, kind)), ""))


# A failure of the answer as the status of a reply that has not begun.
STATUS_OF_CODE: dict[str | None, int] = {
    "upstream_timeout": 504,
    "total_timeout": 504,
    "guard_unavailable": 503,
    "overloaded": 503,
    "shutting_down": 503,
    "internal_error": 500,
}


def status_of(failure: Failure) -> int:
    return STATUS_OF_CODE.get(failure.code, 502)


def place_of(error: BaseException) -> str:
    """For the log: which error, and where. Its message is left out, it may quote a conversation."""
    frames = extract_tb(error.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
