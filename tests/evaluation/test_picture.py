"""The picture: a PNG with a panel for what there is."""

from pathlib import Path

import pytest

from proxy.evaluation.datasets import Span
from proxy.evaluation.picture import draw
from proxy.evaluation.run import Judged
from tests.evaluation.verdicts import answered, asked
from tests.fakes import SAFE, UNSAFE

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "judged",
    [
        [answered("SUU", UNSAFE, span=Span(12, 13)), answered("SSS", SAFE), asked(SAFE, SAFE), asked(UNSAFE, UNSAFE)],
        [answered("SUU", UNSAFE), answered("SSS", UNSAFE)],
        [asked(SAFE, SAFE)],
        [],
    ],
)
def test_every_kind_of_data_gives_a_png(tmp_path: Path, judged: list[Judged]) -> None:
    path = tmp_path / "picture.png"
    draw([("data", judged)], path, "guard@1")
    assert path.read_bytes().startswith(PNG)
