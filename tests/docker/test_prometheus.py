"""Alerts and dashboard by a real Prometheus, where Debian's package or another has put it on the path."""

import asyncio
import math
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.docker.test_monitoring import DASHBOARD, DOCKER, PROMETHEUS, RULES, converse, seasoned
from tests.sockets import free_port

PROMTOOL, SERVER = shutil.which("promtool"), shutil.which("prometheus")
CASES = Path(__file__).parent / "alerts.test.yaml"
SECONDS = 120.0


def promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# Prometheus and its promtool are programs of the system, which pip cannot bring.
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_every_alert_fires_when_it_should_and_else_not() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(DOCKER / "alerts.yaml"))
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    firing = {case["alertname"] for case in cases if case.get("exp_alerts")}
    quiet = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert firing == quiet == {rule["alert"] for rule in RULES}
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


class Asked:
    """A Prometheus that reads the numbers of a server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def ask(self, path: str, **query: str) -> Any:
        async with self._session.get(f"{self._url}/api/v1/{path}", params=query) as answer:
            found = await answer.json()
            assert found["status"] == "success", (query, found)
            return found["data"]

    async def value(self, expression: str) -> list[float]:
        return [float(one["value"][1]) for one in (await self.ask("query", query=expression))["result"]]

    async def until(self, expression: str, least: float) -> None:
        async with asyncio.timeout(SECONDS):
            while sum(await self.value(expression)) < least:  # noqa: ASYNC110 (another process counts)
                await asyncio.sleep(0.2)


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Asked]:
    """By docker/prometheus.yml, but for the target's place, and asked every second."""
    given = yaml.safe_load(yaml.safe_dump(PROMETHEUS))
    given["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    given["rule_files"] = [str(DOCKER / "alerts.yaml")]
    given["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(given))
    port = free_port()
    flags = ["--config.file", "prometheus.yml", "--storage.tsdb.path", "data", "--web.listen-address"]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(SERVER), *flags, f"127.0.0.1:{port}"), cwd=folder, stdout=log, stderr=log
        )
    try:
        async with aiohttp.ClientSession() as session:
            asked = Asked(session, f"http://127.0.0.1:{port}")
            async with asyncio.timeout(SECONDS):
                while True:
                    assert process.returncode is None, (folder / "log").read_text()
                    with suppress(aiohttp.ClientError):
                        if await asked.value("up") == [1]:
                            break
                    await asyncio.sleep(0.2)
            yield asked
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# As above; test_monitoring.py reads the same dashboard without it.
@pytest.mark.skipif(SERVER is None, reason="Prometheus is not installed")
async def test_the_dashboard_has_numbers_and_no_alert_is_broken(tmp_path: Path) -> None:
    async with seasoned() as (url, admin), prometheus(tmp_path, f"127.0.0.1:{admin}") as asked:
        await asked.until("count_over_time(up[1m])", 2)
        before = sum(await asked.value("weir_requests_total"))
        await converse(url)  # the same again: each number grows
        await asked.until("weir_requests_total", 2 * before)
        await asked.until("count_over_time(weir_loop_lag_seconds_count[1m])", 4)
        for panel in DASHBOARD["panels"]:
            for target in panel["targets"]:
                found = await asked.value(target["expr"])
                is_empty = not found or all(math.isnan(value) for value in found)
                assert not is_empty, (panel["title"], target["expr"], found)
                # What stands in the legend are labels that the answer has.
                labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                result = (await asked.ask("query", query=target["expr"]))["result"]
                assert all(labels <= one["metric"].keys() for one in result), target
        rules = [rule for group in (await asked.ask("rules"))["groups"] for rule in group["rules"]]
        assert {rule["name"]: rule["health"] for rule in rules} == {rule["alert"]: "ok" for rule in RULES}
