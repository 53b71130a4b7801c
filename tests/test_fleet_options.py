import pytest

from proxy.cli import _parser


def test_the_actions_have_their_defaults() -> None:
    found = _parser().parse_args(["guard", "up"])
    assert (found.action, found.names, found.address) == ("up", [], None)
    assert (found.replicas, found.cpus, found.gpus, found.wait) == (1, 1.0, None, None)


@pytest.mark.parametrize("words", [["up", "--replicas", "0"], ["away"], []])
def test_others_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["guard", *words])
    assert "weir guard" in capsys.readouterr().err
