from proxy.choices import Choices


def test_a_choice_is_open_until_it_is_finished_or_cut() -> None:
    choices = Choices(2)
    assert choices.is_open(0)
    assert not choices.are_all_ended  # the second was never heard of
    choices.finish(0)
    assert not choices.is_open(0)
    assert not choices.are_all_ended
    assert choices.is_open(1)
    assert not choices.are_all_ended
    choices.cut(1)
    assert choices.are_all_ended
    assert (choices.is_cut(0), choices.is_cut(1), choices.is_cut(2)) == (False, True, False)
    assert choices.uncut == [0]


def test_nothing_has_ended_before_anything_has_come() -> None:
    assert not Choices(1).are_all_ended
