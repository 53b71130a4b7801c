"""The dashboard and the alert rules in docker/ ask for numbers that a real server tells."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxy.app import running
from proxy.config import load_settings
from proxy.demo import CONVERSATIONS, ScriptedLLM
from proxy.guards import open_guard
from proxy.metrics import CODES
from tests.docker.test_deployment import COMPOSE
from tests.servers import PATIENT
from tests.sockets import free_port

DOCKER = Path(__file__).parent.parent.parent / "docker"
PAGE = DOCKER.parent / "docs" / "observability.md"
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "weir.json").read_text())
RULES = [rule for group in yaml.safe_load((DOCKER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
PROMETHEUS = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
# What Prometheus itself adds.
OWN = {"up"}


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (rule["expr"] for rule in RULES)


@asynccontextmanager
async def seasoned() -> AsyncIterator[tuple[str, int]]:
    """A server that has seen an answer, a cut and requests that it refused: its URL, and its operators' port."""
    async with ScriptedLLM().running() as upstream:
        given: dict[str, Any] = {
            **PATIENT,
            "server.port": 0,
            "upstream.base_url": upstream,
            "admin.port": free_port(),
            "guard.process": False,
        }
        settings = load_settings(overrides=given, environ={})
        guard = await open_guard(settings)
        try:
            async with running(settings, guard) as port:
                await converse(f"http://127.0.0.1:{port}")
                yield f"http://127.0.0.1:{port}", given["admin.port"]
        finally:
            await guard.close()


async def converse(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for one in CONVERSATIONS:
            body = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": one.question}]}
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                await answer.read()
        async with session.post(f"{url}/v1/chat/completions", json=[]) as answer:
            assert answer.status == 400


async def told() -> dict[str, set[str]]:
    """Its numbers, and the labels of each."""
    async with (
        seasoned() as (_, admin),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{admin}/metrics") as answer,
    ):
        text = await answer.text()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def on_the_page() -> set[str]:
    """Numbers that docs/observability.md lists, without what Prometheus' formats put behind their names."""
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `weir_")]
    return {name.removesuffix("_total") for row in rows for name in re.findall(r"`(weir_\w+)`", row)}


async def test_every_number_and_label_that_is_asked_for_is_told_and_all_are_on_the_page() -> None:
    found = await told()
    told_names = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in found}
    others = {
        "weir_workers",
        "weir_worker_deaths",
        "weir_key_requests",
        "weir_limits",
    }  # of workers, keys and limits
    others |= {"weir_engine_door_lag_seconds", "weir_engine_door_open_seconds"}  # of an engine's process
    assert on_the_page() == told_names | others
    asked = [name for expr in expressions() for name in re.findall(r"\bweir_\w+", expr)]
    assert len(set(asked)) > 15
    for expr in expressions():
        names = re.findall(r"\bweir_\w+", expr)
        assert {*names} <= found.keys(), expr
        labels = {one.strip() for listed in re.findall(r"by \(([^)]*)\)", expr) for one in listed.split(",")}
        for name, matched in re.findall(r"\b(weir_\w+)\{(\w+)=", expr):
            assert matched in found[name], expr
        assert all(labels <= found[name] for name in names), expr


def test_every_alert_is_on_the_page() -> None:
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| Weir")]
    assert sorted(", ".join(row.strip() for row in rows).split(", ")) == sorted(rule["alert"] for rule in RULES)


def test_alerts_match_codes_that_exist() -> None:
    for expr in expressions():
        for operator, wanted in re.findall(r'code(=~?)"([^"]+)"', expr):
            assert any(re.fullmatch(wanted, code) if operator == "=~" else code == wanted for code in CODES), expr


def test_panels_fill_a_grid_and_name_one_data_source() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert ids == sorted(set(ids))
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        here = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not here & places, panel["title"]
        assert max(x for x, _ in here) < 24
        places |= here
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "weir"}
    (source,) = yaml.safe_load((DOCKER / "grafana" / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["uid"] == "weir"


def test_every_alert_says_how_bad_it_is_and_why() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert re.fullmatch(r"[A-Z].{20,}\.", rule["annotations"]["summary"])
        assert re.fullmatch(r"\d+[ms]", rule.get("for", "0m"))


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_compose_mounts_what_is_there(service: str) -> None:
    for volume in COMPOSE["services"][service]["volumes"]:
        source = volume.split(":")[0]
        assert not source.startswith(".") or (DOCKER / source).exists()


def test_prometheus_asks_where_the_operators_listener_is() -> None:
    environ: dict[str, Any] = COMPOSE["services"]["weir"]["environment"]
    (target,) = PROMETHEUS["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"127.0.0.1:{environ['WEIR_ADMIN__PORT']}"
    assert COMPOSE["services"]["prometheus"]["network_mode"] == "service:weir"
    assert "WEIR_ADMIN__HOST" not in environ, "it stays on loopback, which the shared network namespace reaches"
    assert PROMETHEUS["rule_files"] == ["/etc/prometheus/alerts.yaml"]
