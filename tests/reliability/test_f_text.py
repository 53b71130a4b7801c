"""Section F of docs/reliability.md: letters that can be written in more than one way."""

from proxy.retokenizer import encode
from tests.driver import DONE, Guard, chunk, drive, read, stream_of
from tests.e2e.test_streams import trigger_of
from tests.fakes import ScriptedGuard, ScriptedUpstream, labels
from tests.servers import weir
from tests.sockets import ask

# Decomposed: the guard's tokens are those of the composed text, which has fewer characters.
DECOMPOSED = (
    "Tie\u0302\u0301ng Vie\u0323\u0302t, A\u030angstro\u0308m, \u1112\u1161\u11ab\u1100\u1173\u11af cafe\u0301."
)


def test_f1_a_decomposed_text_is_delivered_as_it_came_and_cut_at_its_own_character() -> None:
    pieces = [*(chunk({"content": one}) for one in DECOMPOSED), chunk({}, "stop"), DONE]
    assert read(drive(stream_of()[0], pieces)).content == DECOMPOSED
    for flagged in range(len(encode(DECOMPOSED)) - 1):
        rule = labels("S" * flagged + "UU")
        found = read(drive(stream_of()[0], pieces, Guard(rule)))
        assert found.finish == {0: "content_filter"}
        assert found.content == DECOMPOSED[: place_of(flagged)]


def place_of(flagged: int) -> int:
    """The character at which a token begins, by the longest beginning of the text that has only the tokens before."""
    before = encode(DECOMPOSED)[:flagged]
    places = [at for at in range(len(DECOMPOSED) + 1) if encode(DECOMPOSED[:at]) == before]
    return max(places) if places else trigger_of(DECOMPOSED, labels("S" * flagged + "UU"))


async def test_f1_a_decomposed_text_arrives_over_a_socket_to_the_byte() -> None:
    pieces = [*(chunk({"content": one}) for one in DECOMPOSED), chunk({}, "stop"), DONE]
    async with weir(ScriptedUpstream(pieces), ScriptedGuard()) as server:
        reply = await ask(server.url, stream=True)
    sent = [line for line in reply.body.decode().split("\n") if line]
    assert read("\n".join(sent).encode()).content.encode() == DECOMPOSED.encode()
