"""One moderated request, from its prompt to its record: judge the prompt, call the upstream, pump.

async with Exchange(service, record, ask) as exchange:
    await exchange.begin()            # the prompt's verdict and the upstream's head, or an ApiError
    await exchange.run(client)        # the answer
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from adapters.base import Adapter, Assessment, Block, Failure, Options, Report, Usage
from proxy.annotations import notations_of
from proxy.aside import Aside
from proxy.classifier import Classifier
from proxy.conversation import Prompt
from proxy.dialects.call import UpstreamCall
from proxy.drive import Drive
from proxy.driver import Client
from proxy.errors import UPSTREAM_ODD, Fault
from proxy.framing import BodyFraming, EventFraming, Framing
from proxy.guard.protocol import Guard, GuardError
from proxy.hold_times import HoldTimes
from proxy.policies import Chosen, Policies, sides_of
from proxy.prompts import (
    PromptBlocked,
    assess_prompt,
    both,
    is_blocked,
    judge_prompts,
    refusal_without_verdict,
    render_prompts,
)
from proxy.records import Record, Scanned, channel_records, scanned_of
from proxy.refusals import refusal_of
from proxy.request_fields import ModeratedRequest
from proxy.settings import Settings
from proxy.store.writer import RecordWriter
from proxy.stream import Expected, ModeratedStream, Outcome
from proxy.telemetry.answer import watched
from proxy.telemetry.exporter import Telemetry
from proxy.upstream import Upstream, UpstreamResponse
from proxy.upstreams import Upstreams


@dataclass(frozen=True, slots=True)
class Service:
    """What a request is served with: what it found at its beginning holds to its end."""

    settings: Settings
    policies: Policies
    guard: Guard
    upstreams: Upstreams
    records: RecordWriter | None = None  # none are kept
    times: HoldTimes = field(default_factory=HoldTimes)  # of what is streamed
    telemetry: Telemetry | None = None  # no traces are told
    aside: Aside = field(default_factory=Aside)  # for what would hold the event loop up


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as it came in, read and checked."""

    endpoint: str
    request: ModeratedRequest
    chosen: Chosen
    upstream: Upstream  # that it goes to
    headers: Mapping[str, str]
    call: UpstreamCall  # what is sent there
    owner: str = ""  # who pays: states of the guard are shared within it, never across
    notations: frozenset[str] = frozenset()  # that the client asks for


class Exchange:
    """Use as an async context manager: leaving it frees the upstream's connection and the guard's streams."""

    def __init__(self, service: Service, record: Record, ask: Ask, body: bytes | None = None) -> None:
        """`body` of the call, written."""
        self._service, self._settings = service, service.settings
        self._record = record
        self._ask, self._body = ask, body
        self._policy = ask.chosen.settings
        self._stack = AsyncExitStack()
        self._classifier: Classifier | None = None
        self._response: UpstreamResponse | None = None
        self._assessment: Assessment | None = None
        self._stream: ModeratedStream | None = None
        self._adapter: Adapter | None = None
        self._prompts: list[Prompt] = []
        self._prompt_policy, self._answer_policy = sides_of(ask.chosen.policy, ask.request)
        # Where nothing waits for a verdict, none that fails may change the delivery.
        is_watching = not self._prompt_policy.holds and self._answer_policy.is_watching
        self._fails_open = self._settings.guard.on_failure == "open" or is_watching
        self._allows_unscanned = self._policy.allow_unscanned or is_watching

    async def __aenter__(self) -> "Exchange":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._settle_record()
        if self._response is not None:
            self._response.close()  # first: freeing the guard may have to wait
        self._record.note_upstream_end()
        await self._stack.aclose()

    # The request.

    async def begin(self) -> None:
        """Raises ApiError, PromptBlocked."""
        aside, folds = self._service.aside.run, self._settings.guard.folded_view
        keeps = self._service.records is not None and self._ask.chosen.keeps_text(self._settings)
        tells = self._record.notes is not None and self._ask.chosen.tells_text(self._settings)
        if self._service.records is not None or tells:
            self._record.trace(self._ask.request.messages, self._ask.headers, keeps_text=keeps, tells_text=tells)
        self._prompts = prompts = await render_prompts(
            self._ask.request, self._service.guard, allow_unscanned=self._allows_unscanned, folds=folds, aside=aside
        )
        self._record.prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
        self._record.dropped_turns = sum(prompt.dropped_turns for prompt in prompts)
        unscanned = [part for prompt in prompts for part in prompt.unscanned]
        self._record.unscanned_parts = (*unscanned, *self._ask.request.unscanned)
        if self._policy.prompt_check == "before":
            await self._judge_prompt()
            await self._open_upstream()
        else:
            await both(self._judge_prompt(), self._open_upstream())
        response = self._response
        assert response is not None  # _open_upstream returned
        if response.status >= 400:
            self._record.error = f"upstream status {response.status}"
            raise await refusal_of(response, self._classifier, self._answer_policy, own_key=self._ask.upstream.own_key)
        wanted = "text/event-stream" if self._ask.request.stream else "application/json"
        if response.content_type != wanted:
            raise Fault(UPSTREAM_ODD, 502, f"{response.content_type} instead of {wanted}").api_error()

    async def _judge_prompt(self) -> None:
        guard, settings, choices = self._service.guard, self._settings.guard, self._ask.request.choices
        begin = self._record.elapsed()
        try:
            self._classifier, risk = await judge_prompts(
                self._prompts, guard, settings, self._stack, self._ask.owner, self._prompt_policy, choices
            )
        except GuardError as exc:
            self._record.error = f"{type(exc).__name__}: {exc}"
            if self._fails_open:
                return
            raise refusal_without_verdict(exc) from exc
        finally:
            self._record.note_prompt(begin)
        self._prompts = []
        self._assessment = assess_prompt(risk, self._prompt_policy)
        self._record.prompt = self._assessment.worst
        self._record.prompt_flagged = self._assessment.is_flagged
        if is_blocked(risk, self._prompt_policy):
            self._record.prompt_blocked = True
            assert self._record.prompt is not None
            raise PromptBlocked(self._record.prompt)

    async def _open_upstream(self) -> None:
        call, body = self._ask.call, self._body
        self._record.note_upstream(self._ask.upstream.settings)
        try:
            self._response = await self._ask.upstream.open(
                "GET" if body is None else "POST",
                call.path,
                self._ask.headers,
                body=body,
                query=call.query,
                key_header=call.endpoint.key_header,
                moves_key=call.moves_key,
            )
        except Fault as fault:
            self._record.error = str(fault)
            raise fault.api_error() from fault
        self._body = None  # which may be long, as the answer may
        self._record.note_head(self._response.status)

    # The answer.

    async def run(self, client: Client) -> ModeratedStream:
        """Pump the answer to its end and return the stream it was. Only what `client` raises comes out."""
        request = self._ask.request
        assert self._response is not None  # begin() returned
        self._adapter = watched(self._open_adapter(), self._record.notes)
        expected = Expected(
            choices=request.choices,
            prompt_tokens=self._record.prompt_tokens,
            wants_usage=request.include_usage and request.stream,
            notice=self._policy.notice,
            prompt=self._assessment if self._prompt_policy.holds else None,
            folded_view=self._settings.guard.folded_view,
            traces=self._record.traces,
            timing=self._service.times.of(self._response.body.arrived) if request.stream else None,
        )
        self._stream = stream = ModeratedStream(self._framing(), self._adapter, self._answer_policy, expected)
        if self._classifier is None:
            stream.open_gate()
        await Drive(
            stream,
            self._response.body,
            self._classifier,
            client,
            self._ask.upstream.settings,
            self._settings.server.heartbeat_seconds,
            fails_open=self._fails_open,
            aside=self._service.aside.run,
        ).run()
        return stream

    async def finish(self) -> None:
        """Let the upstream's connection serve again, if it has said all."""
        if self._response is not None and self._stream is not None and self._stream.outcome is Outcome.COMPLETE:
            await self._response.finish()

    def encode_failure(self, failure: Failure) -> bytes:
        assert self._stream is not None  # only an answer that has begun can fail
        return self._stream.encode_failure(failure)

    @property
    def is_over(self) -> bool:  # to a good end, with nothing left to come: its client may be told both at once
        stream, response = self._stream, self._response
        is_complete = stream is not None and stream.outcome is Outcome.COMPLETE
        return is_complete and response is not None and response.body.has_all

    @property
    def passed_headers(self) -> dict[str, str]:
        """The upstream's headers that the client may see."""
        return dict(self._response.headers) if self._response is not None else {}

    @property
    def scanned(self) -> Scanned:
        """What can be promised of the answer so far; the record has the final word."""
        if self._classifier is None:
            return Scanned.NONE
        if self._stream is not None and self._stream.is_open:
            return scanned_of(channel_records(self._stream), self._record.unscanned_parts)
        return Scanned.PARTIAL if self._record.unscanned_parts else Scanned.FULL

    def blocked_answer(self, blocked: PromptBlocked) -> list[bytes]:
        """What a client gets for a blocked prompt with `prompt_block = "answer"`: a normal answer that says so."""
        request = self._ask.request
        adapter = self._open_adapter()
        framing = self._framing()
        report = Report((), self._assessment, None)
        notice = self._policy.prompt_notice
        events = [
            event
            for choice in range(request.choices)
            for event in adapter.encode_block(Block(choice, blocked.note, 1, notice), report)
        ]
        if request.include_usage and request.stream:
            events += adapter.encode_usage(Usage(self._record.prompt_tokens, 0))
        return [framing.encode(event) for event in [*events, *adapter.encode_end()]]

    def _open_adapter(self) -> Adapter:
        endpoint = self._ask.call.endpoint
        return (endpoint.stream if self._ask.request.stream else endpoint.body)(self._options())

    def _options(self) -> Options:
        request = self._ask.request
        wanted, asked = self._settings.annotations, self._ask.notations
        return Options(
            model=request.model,
            choices=request.choices,
            guard_model=self._service.guard.info.model,
            notations=notations_of(wanted, self._policy, self._answer_policy, asked),
            include_usage=request.include_usage,
            allow_unscanned=self._allows_unscanned,
            echo=request.echo,
        )

    def _framing(self) -> Framing:
        limits = self._ask.upstream.settings
        return EventFraming(limits.max_event_bytes) if self._ask.request.stream else BodyFraming(limits.max_body_bytes)

    def _settle_record(self) -> None:
        record, classifier = self._record, self._classifier
        if classifier is not None:
            record.window_slides = classifier.slides
            record.guard_lag_p50_seconds, record.guard_lag_max_seconds = classifier.lags.median, classifier.lags.max
            record.note_answer(classifier.lags)
        if self._stream is None:
            record.scanned = self.scanned
        else:
            record.dropped_fields = self._adapter.dropped if self._adapter is not None else 0
            record.settle(self._stream, is_judged=classifier is not None)
