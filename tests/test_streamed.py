"""A client of a drive: its head is made with the first bytes, and only a whole answer is called whole."""

import pytest

from proxy.streamed import Streamed
from tests.test_chunk_writer import opened


class Answer:
    def __init__(self, *, is_whole: bool = True) -> None:
        self.is_whole = is_whole
        self.said: list[str] = []

    def begin(self) -> None:
        self.said.append("begin")

    def beat(self) -> None:
        self.said.append("beat")

    async def drain(self) -> None:
        self.said.append("drain")

    def has_all(self) -> bool:
        return self.is_whole


@pytest.mark.parametrize("is_whole", [True, False])
async def test_it_begins_once_and_ends_where_all_has_come(is_whole: bool) -> None:
    writer, transport, _ = await opened()
    answer = Answer(is_whole=is_whole)
    client = Streamed(writer, answer)
    client.beat()
    client.write(b"a")
    client.write(b"b")
    client.write_last(b"c")
    assert answer.said == ["beat", "begin"]
    assert b"".join(transport.sent) == b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n" + (b"0\r\n\r\n" if is_whole else b"")
    assert writer.has_ended is is_whole


async def test_an_answer_of_one_write_begins_too() -> None:
    writer, transport, _ = await opened()
    answer = Answer()
    Streamed(writer, answer).write_last(b"all")
    assert answer.said == ["begin"]
    assert transport.sent == [b"3\r\nall\r\n0\r\n\r\n"]


async def test_who_waits_for_room_waits_for_the_answers_own() -> None:
    writer, _, protocol = await opened()
    answer = Answer()
    client = Streamed(writer, answer)
    assert not client.is_full
    protocol.pause_writing()
    assert client.is_full
    await client.drain()
    assert answer.said == ["drain"]
