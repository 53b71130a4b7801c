"""Who is let in, and what errors look like that no endpoint has told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from proxy.errors import INTERNAL, ApiError, Fault, place_of
from proxy.handlers import ADMISSION, CALLER, CURRENT, HTTP_LOGGER, METRICS, SERVICE
from proxy.hosts import Hosts
from proxy.identity import CREDENTIALS, Callers
from proxy.loading import refuse_while_loading
from proxy.log import Seldom
from proxy.passthrough import refusal
from proxy.replies import error_response

CALLERS = web.AppKey("callers", Callers)
HOSTS = web.AppKey("hosts", Hosts)
# What anybody may ask who can reach the port. All else is for callers that we know.
PUBLIC = ("/healthz", "/readyz")
# Lines that say who was not let in: a counter has the rest, weir_errors_total.
REFUSALS = Seldom(5)


async def part_while_draining(request: web.Request, response: web.StreamResponse) -> None:
    """A client that keeps its connection would come back to a server that is about to go."""
    if request.app[ADMISSION].is_draining:
        response.force_close()
        response.headers[hdrs.CONNECTION] = "close"


@web.middleware
async def errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    """Whatever goes wrong outside an endpoint is told in the shape that clients of the API read."""
    try:
        with _let_in(request):
            response: web.StreamResponse = await handler(request)
    except ApiError as exc:
        request.app[METRICS].refused(exc)
        return error_response(exc, {}, request.path)
    except (ConnectionError, TimeoutError):
        raise
    except web.HTTPException as exc:
        allowed = {"allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}
        message = {404: "There is no such endpoint here.", 405: "The endpoint does not take this method."}
        text = refusal(request.method, request.raw_path.partition("?")[0])
        text = text or message.get(exc.status, "The request cannot be served.")
        error = ApiError(exc.status, text, code="not_found" if exc.status == 404 else None)
        return error_response(error, allowed, request.path)
    except Exception as exc:
        HTTP_LOGGER.error("internal error: %s", place_of(exc))
        return error_response(Fault(INTERNAL, 500).api_error(), {}, request.path)
    return response


@contextmanager
def _let_in(request: web.Request) -> Iterator[None]:
    """Whoever may ask, once there is a guard. Raises ApiError.

    Decided on the route that was matched, nothing else; what is no route is not public.
    """
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical in PUBLIC:
        _check_head(request)
        yield
        return
    try:
        request.app[HOSTS].check(request.headers.get(hdrs.HOST), request.headers.get(hdrs.ORIGIN))
        headers = request.headers
        given = [(name, text) for name in CREDENTIALS if name in headers for text in headers.getall(name)]
        request[CALLER] = request.app[CALLERS].identify(given)
    except ApiError as exc:
        _tell_refusal(request, exc)
        raise
    _check_head(request)
    with request.app[CURRENT].taken() as request[SERVICE]:
        refuse_while_loading(request[SERVICE].guard)
        yield


def _tell_refusal(request: web.Request, error: ApiError) -> None:
    """Who was not let in, in few lines: the route is ours, and nothing else of the request is told but its sender."""
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "no route"
    if (left_out := REFUSALS.pick()) is not None:
        more = f", and {left_out} more like it" if left_out else ""
        HTTP_LOGGER.warning("refused: %s %s, %s from %s%s", error.status, error.code, route, request.remote, more)


def _check_head(request: web.Request) -> None:
    """What routes and parsers may disagree about is refused. Raises ApiError."""
    resource = request.match_info.route.resource
    expected = resource.canonical.format(**request.match_info) if resource is not None else None
    if resource is not None and request.raw_path.partition("?")[0] != expected:
        raise ApiError(404, "There is no such endpoint here.", code="not_found")
    if "websocket" in ",".join(request.headers.getall(hdrs.UPGRADE, ())).lower():
        message = "WebSockets are not served: what passes through one cannot be judged. Send a POST with stream: true."
        raise ApiError(400, message, code="websocket_unsupported")
    is_chunked = hdrs.TRANSFER_ENCODING in request.headers
    if request.version not in (HttpVersion10, HttpVersion11) or (is_chunked and request.version == HttpVersion10):
        raise ApiError(400, "Send the request as HTTP/1.1.", code="unsupported_http_version")
