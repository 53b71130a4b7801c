import json

import pytest

from proxy.request_body import BadRequest
from proxy.request_fields import Terms
from proxy.server_settings import ServerSettings
from proxy.transcript import Transcript

UNREADABLE = frozenset({"image"})


def transcript(*, allow_unscanned: bool = False) -> Transcript:
    return Transcript(Terms(ServerSettings(), allow_unscanned=allow_unscanned), UNREADABLE)


def test_what_cannot_be_judged_is_refused_by_its_place() -> None:
    with pytest.raises(BadRequest, match=r"'input\[3\]' cannot be read by the guard") as caught:
        transcript().leave_out("image", "input[3]")
    assert caught.value.param == "input[3]"


def test_where_it_may_pass_it_is_listed_and_a_clients_own_word_is_never_repeated() -> None:
    read = transcript(allow_unscanned=True)
    for kind in ("image", "data", "<script>"):
        read.leave_out(kind, "x")
    assert read.unscanned == ["x (image)", "x (data)", "x (unknown type)"]


def test_an_unknown_item_is_read_as_its_json_without_what_is_no_words() -> None:
    item = {"type": "news", "text": "good morning", "blob": "QUJD" * 200}
    with pytest.raises(BadRequest):
        transcript().json_of(item, "x")
    read = transcript(allow_unscanned=True)
    found = json.loads(read.json_of(item, "x"))
    assert found["text"] == "good morning"
    assert item["blob"] not in json.dumps(found)
    assert read.unscanned == ["x (data)"]


def test_a_tools_result_is_a_turn_of_its_own() -> None:
    read = transcript()
    read.add_result("42")
    assert read.messages == [{"role": "tool", "content": "42"}]
