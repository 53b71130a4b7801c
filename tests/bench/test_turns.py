"""The measure of harm over turns tells a guard that reads all of a conversation from one that reads its end."""

from collections.abc import Sequence

from bench.turns import HARMFUL, HARMLESS, Flagged, judged
from proxy.policy import Policy
from proxy.risk import Risk, Role
from proxy.vocabulary import FIRST_CONTROL_ID, decode
from tests.fakes import SAFE, UNSAFE, ScriptedGuard, ScriptedStream, risk


class Reader(ScriptedGuard):
    """Flags a prompt that names a bomb anywhere."""

    async def open(
        self, ids: Sequence[int], *, read: Sequence[int] = (), role: Role = Role.USER, owner: str = ""
    ) -> tuple[ScriptedStream, list[Risk]]:
        stream, _ = await super().open(ids, read=read, role=role, owner=owner)
        level = UNSAFE if "bomb" in decode([one for one in ids if one < FIRST_CONTROL_ID]) else SAFE
        return stream, [risk(level, role=role) for _ in read]


async def test_a_guard_that_reads_all_turns_flags_what_their_last_one_hides() -> None:
    bombs = [things for things in HARMFUL if "bomb" in things[1]]
    found = await judged(bombs, Reader(), Policy())
    assert found["referred to"] == Flagged(len(bombs), 0, len(bombs))
    assert found["asked before"] == Flagged(len(bombs), 0, len(bombs))
    assert found["in halves"].count == len(bombs)


async def test_what_harms_nobody_is_flagged_by_nobody_who_reads() -> None:
    found = await judged(HARMLESS, Reader(), Policy())
    assert [(one.whole, one.alone, one.count) for one in found.values()] == [(0, 0, len(HARMLESS))] * 3
