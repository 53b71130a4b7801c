"""A guard's engine that is a script behind a unix socket: it keeps streams, judges by rule, and lies on demand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from proxy.guard.commands import Close, Command, Feed, Fork, Open, Outcome
from proxy.guard.metrics import Metrics
from proxy.guard.protocol import GuardInfo, UnknownStream
from proxy.guard.rows import write_rows
from proxy.guard.wire import LENGTH, Pulse, Welcome, answers_of, decode_commands, encode, frame
from proxy.risk import Risk, Role
from tests.fakes import SAFE, Rule, all_safe, content_of, risk

VOCABULARY = 151_936
LIES = ("delay", "crash", "not finite", "short", "long", "duplicate", "out of order", "foreign")


def rows_of(risks: list[Risk], role: Role) -> bytes:
    return write_rows([[*one.levels, *one.categories] for one in risks], role)


@dataclass
class ScriptedEngine:
    rule: Rule = all_safe
    lie: str | None = None
    at: int = 0  # the question with which it begins to lie
    goes_on: bool = False  # lie at every question from there on
    delay: float = 0.5
    # From a question's ticket to the foreign one that is answered in its place: the next, which a lone stream has not
    # asked for yet. Where there are others, it may be one of theirs, and the answer would count as the guard's word.
    foreign: int = 1
    streams: dict[int, list[int]] = field(default_factory=dict)
    questions: int = 0
    _late: list[Outcome] = field(default_factory=list)  # held back, to come behind the next
    _suspects: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def running(self, path: str) -> AsyncIterator["ScriptedEngine"]:
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield self
        finally:
            server.close()

    def arm(self, lie: str | None, at: int, *, goes_on: bool = False) -> None:
        self.lie, self.at, self.goes_on, self.questions = lie, at, goes_on, 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams: dict[int, list[int]] = {}  # a door that comes again is told that nothing is known of its streams
        self.streams = streams
        try:
            await self._frame(reader)
            writer.write(frame(encode(Welcome(GuardInfo("scripted", "1", 32768), VOCABULARY, self._suspects))))
            writer.write(frame(encode(Pulse(Metrics()))))
            self._suspects = []
            while True:
                commands = decode_commands(await self._frame(reader))
                for outcome in self._late:
                    _say(writer, outcome)
                self._late.clear()
                for command in commands:
                    await self._obey(command, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            streams.clear()
            writer.transport.abort()

    async def _obey(self, command: Command, writer: asyncio.StreamWriter) -> None:
        if isinstance(command, Open | Feed):
            await self._answer(command, writer)
        elif isinstance(command, Fork) and command.stream in self.streams:
            self.streams[command.child] = self.streams[command.stream][: command.position]
        elif isinstance(command, Close):
            self.streams.pop(command.stream, None)

    async def _answer(self, question: Open | Feed, writer: asyncio.StreamWriter) -> None:
        outcome = self._judged(question)
        number, self.questions = self.questions, self.questions + 1
        if self.lie is None or number < self.at or (number > self.at and not self.goes_on):
            _say(writer, outcome)
            return
        await self._lie(question, outcome, writer)

    def _judged(self, question: Open | Feed) -> Outcome:
        if isinstance(question, Open):
            self.streams[question.stream] = list(question.ids)
            ids, reads = self.streams[question.stream], question.reads
        elif question.stream not in self.streams:
            return Outcome(question.ticket, error=UnknownStream("unknown"))
        else:
            ids = self.streams[question.stream]
            del ids[question.position :]
            ids += question.ids
            reads = list(range(question.position, len(ids)))
        return Outcome(
            question.ticket, rows_of([self._risk(ids[: read + 1], question.role) for read in reads], question.role)
        )

    def _risk(self, ids: list[int], role: Role) -> Risk:
        content = content_of(ids)
        return risk(self.rule(content) if content and role is Role.ASSISTANT else SAFE, role=role)

    async def _lie(self, question: Open | Feed, outcome: Outcome, writer: asyncio.StreamWriter) -> None:
        count = len(question.reads) if isinstance(question, Open) else len(question.ids)
        safe = Outcome(question.ticket, rows_of([risk(SAFE, role=question.role)] * count, question.role))
        if self.lie == "delay":
            await asyncio.sleep(self.delay)
            _say(writer, outcome)
        elif self.lie == "crash":
            self._suspects = [question.stream]
            writer.transport.abort()
            raise ConnectionResetError
        elif self.lie == "not finite":
            _say(writer, Outcome(question.ticket, b"\xff" * len(safe.rows)))
        elif self.lie == "short":
            _say(writer, Outcome(question.ticket, safe.rows[: len(safe.rows) * (count - 1) // max(count, 1)]))
        elif self.lie == "long":
            _say(writer, Outcome(question.ticket, safe.rows * 2))
        elif self.lie == "duplicate":  # the second says the opposite, and comes too late to count
            _say(writer, outcome)
            _say(writer, safe)
        elif self.lie == "out of order":
            self._late.append(outcome)
        else:  # a verdict for a question that is not this one's, or nobody's
            _say(writer, Outcome(question.ticket + self.foreign, safe.rows))
            _say(writer, Outcome(max(0, question.ticket - 1), safe.rows))

    @staticmethod
    async def _frame(reader: asyncio.StreamReader) -> bytes:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return await reader.readexactly(length)


def _say(writer: asyncio.StreamWriter, outcome: Outcome) -> None:
    writer.write(frame(encode(answers_of([outcome]))))
