"""Who is not let in, as the operator hears of it; as a client does, in reliability/test_b_routes_and_trust.py."""

import pytest

from proxy.log import Seldom
from tests.reliability.operator import operated, told
from tests.reliability.test_b_routes_and_trust import OURS
from tests.sockets import CHAT_PATH, ask, http_request


async def test_who_is_not_let_in_is_told_to_the_operator_in_few_lines_without_the_credential(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("proxy.entrance.REFUSALS", Seldom(5, lambda: clock[0]))
    async with operated(**OURS) as (server, admin):
        for number in range(20):
            clock[0] += 2.0 * (number == 19)
            path = f"{CHAT_PATH if number else '/sk-canary'}?key=sk-canary"
            refused = http_request(path=path, headers={"x-api-key": "sk-canary"})
            assert (await ask(server.url, refused)).status == 401
        assert b'weir_errors_total{code="invalid_api_key"} 20.0' in await told(admin)
    where = f"{CHAT_PATH} from 127.0.0.1"
    assert caplog.messages == [
        "refused: 401 invalid_api_key, no route from 127.0.0.1",
        *[f"refused: 401 invalid_api_key, {where}"] * 4,
        f"refused: 401 invalid_api_key, {where}, and 14 more like it",
    ]
