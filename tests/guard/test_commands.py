from proxy.guard.commands import Feed, Outcome
from proxy.risk import Role


def test_a_feed_is_read_by_the_response_heads_and_an_outcome_is_good_unless_it_says_otherwise() -> None:
    assert Feed(1, 2, 0, [3]).role is Role.ASSISTANT
    assert Outcome(1).error is None
