"""The files in docker/ against what Weir really is: its settings, routes, exit times. Images are built by hand."""

import asyncio
import contextlib
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from openai import AsyncOpenAI

from proxy.app import build_app, running
from proxy.config import ConfigError, load_settings
from proxy.demo import STAY_ANSWER
from proxy.exposure import require_identity
from proxy.identity import digest_of
from tests.fakes import ScriptedGuard
from tests.servers import PATIENT

ROOT = Path(__file__).parent.parent.parent
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile*"))
MANIFESTS = sorted((ROOT / "docker" / "kubernetes").glob("*.yaml"))
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
# What the manifests take from secrets.
SECRETS = {
    "WEIR_GUARD__TOKEN": "a-secret",
    "WEIR_UPSTREAM__API_KEY": "sk-ours",
    "WEIR_AUTH__KEYS": f"app:{digest_of('weir-a')}",
}


def instructions(file: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", file.read_text()))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in text.splitlines() if line]


def pods(file: Path) -> Iterator[dict[str, Any]]:
    for found in yaml.safe_load_all(file.read_text()):
        if found["kind"] == "Deployment":
            yield found["spec"]["template"]["spec"]


def weir_containers() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [
        (pod, container)
        for file in MANIFESTS
        for pod in pods(file)
        for container in pod["containers"]
        if container["image"].startswith("weir")
    ]


CONTAINERS = weir_containers()
IDS = [container["name"] for _, container in CONTAINERS]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_runs_without_root_and_copies_what_is_there(file: Path) -> None:
    steps = instructions(file)
    users = [value for name, value in steps if name == "USER"]
    assert users == ["10001:10001"]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source for name, value in steps if name == "COPY" and "--from" not in value for source in value.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert source in kept, f"{source} is kept from the build by .dockerignore"
    health = next(value for name, value in steps if name == "HEALTHCHECK")
    assert "/readyz" in health
    environment = [value for name, value in steps if name == "ENV"]
    names = dict(pair.split("=", 1) for value in environment for pair in shlex.split(value))
    settings = load_settings(environ={name: value for name, value in names.items() if name.startswith("WEIR_")})
    assert settings.server.host == "0.0.0.0"
    with pytest.raises(ConfigError, match="keys"):
        require_identity(settings)  # whoever runs it has to say who may ask
    assert ("EXPOSE", str(settings.server.port)) in steps


def test_every_setting_of_compose_is_one() -> None:
    environment = COMPOSE["services"]["weir"]["environment"]
    given = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in environment.items()}
    settings = load_settings(environ=given)
    require_identity(settings)
    assert settings.upstream.base_url == "http://upstream:9000/v1"
    (port,) = COMPOSE["services"]["weir"]["ports"]
    assert port == f"127.0.0.1:8080:{settings.server.port}"
    grace = float(COMPOSE["services"]["weir"]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.server.drain_seconds
    for service in ("weir", "upstream"):
        assert COMPOSE["services"][service]["read_only"]
        assert COMPOSE["services"][service]["cap_drop"] == ["ALL"]


def test_profiles_keep_what_needs_a_model_or_an_operator_out_of_a_plain_start() -> None:
    """Two services start by themselves, and the head of the file tells of every profile."""
    services = COMPOSE["services"]
    assert {name for name, service in services.items() if "profiles" not in service} == {"weir", "upstream"}
    head = (ROOT / "docker" / "compose.yaml").read_text().split("name: weir")[0]
    for name, service in services.items():
        for profile in service.get("profiles", []):
            assert f"--profile {profile} " in head, f"{name}: nobody is told of the profile {profile}"
    volumes = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    named = {volume for volume in volumes if re.fullmatch(r"\w+", volume)}
    assert named == set(COMPOSE["volumes"])


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_is_built_by_the_rules_of_hadolint(file: Path) -> None:
    """The rules that matter here, by their numbers; the linter itself is no package of ours."""
    steps = instructions(file)
    runs = [value for name, value in steps if name == "RUN"]
    assert all(re.search(r":[\w.-]+$", value) for name, value in steps if name == "ARG" and value.startswith("BASE="))
    assert not [value for name, value in steps if name == "ADD"], "DL3020: use COPY"
    assert not [run for run in runs if re.search(r"\bsudo\b|\bcd /|apt (?!-)", run)], "DL3003, DL3004, DL3027"
    for run in runs:
        if "apt-get install" in run:
            assert "--no-install-recommends" in run, "DL3015"
            assert "--yes" in run, "DL3014"
            assert "rm -rf /var/lib/apt/lists/*" in run, "DL3009"
        if "pip install" in run:
            assert "--no-cache-dir" in run, "DL3042"
            assert "--constraint constraints.txt" in run, "DL3013: versions are pinned there"
    for name, value in steps:
        if name == "WORKDIR":
            assert value.startswith("/"), "DL3000"
        if name in ("CMD", "ENTRYPOINT"):
            assert value.startswith("["), "DL3025: the JSON form, so that signals arrive"
    names = [name for name, _ in steps]
    last = names[len(names) - 1 - names[::-1].index("FROM") :]
    for once in ("CMD", "ENTRYPOINT", "HEALTHCHECK"):
        assert last.count(once) == 1, "DL4003, DL4004, DL3012"


@pytest.mark.parametrize(("pod", "container"), CONTAINERS, ids=IDS)
def test_every_setting_of_a_manifest_is_one_and_its_probes_are_routes(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    environ = {entry["name"]: entry.get("value", SECRETS.get(entry["name"])) for entry in container["env"]}
    settings = load_settings(environ=environ)
    if "args" not in container:  # `weir serve`
        require_identity(settings)
    routes = {
        route.resource.canonical for route in build_app(settings, ScriptedGuard()).router.routes() if route.resource
    }
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(name, {})
        assert set(probe) <= {"httpGet", "tcpSocket", "periodSeconds", "timeoutSeconds", "failureThreshold"}
        if "httpGet" in probe:
            assert probe["httpGet"]["path"] in routes
            assert ports[probe["httpGet"]["port"]] == settings.server.port
    pause = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    if "http" in ports:
        assert pod["terminationGracePeriodSeconds"] > float(pause[1]) + settings.server.drain_seconds
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts <= {volume["name"] for volume in pod["volumes"]}


def test_proxies_look_for_the_guard_where_its_service_is() -> None:
    gateway = list(yaml.safe_load_all((ROOT / "docker" / "kubernetes" / "gateway.yaml").read_text()))
    services = {found["metadata"]["name"]: found["spec"] for found in gateway if found["kind"] == "Service"}
    proxy = next(container for _, container in CONTAINERS if container["name"] == "weir" and "image" in container
                 and any(entry["name"] == "WEIR_GUARD__ADDRESS" for entry in container["env"]))  # fmt: skip
    address = next(entry["value"] for entry in proxy["env"] if entry["name"] == "WEIR_GUARD__ADDRESS")
    assert address == f"tcp://weir-guard:{services['weir-guard']['ports'][0]['port']}"
    for name, spec in services.items():
        labels = [found["spec"]["template"]["metadata"]["labels"] for found in gateway if found["kind"] == "Deployment"]
        assert spec["selector"] in labels, name


@contextlib.asynccontextmanager
async def scripted_upstream() -> AsyncIterator[str]:
    """The upstream of compose as a process of its own, by its own command but for the port; yields its base URL."""
    *command, place = COMPOSE["services"]["upstream"]["command"]
    assert (
        urlsplit(COMPOSE["services"]["weir"]["environment"]["WEIR_UPSTREAM__BASE_URL"].split(":-")[1][:-1]).port == 9000
    )
    assert place == "0.0.0.0:9000"
    llm = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", *command, "0.0.0.0:0", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert llm.stdout is not None
        async with asyncio.timeout(60):
            url = (await llm.stdout.readline()).decode().split()[-1]
        yield url.replace("0.0.0.0", "127.0.0.1")
    finally:
        llm.terminate()
        await llm.wait()


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_the_upstream_of_compose_answers_through_weir(is_streamed: bool) -> None:
    async with scripted_upstream() as upstream:
        settings = load_settings(overrides={**PATIENT, "server.port": 0, "upstream.base_url": upstream}, environ={})
        async with (
            running(settings, ScriptedGuard()) as port,
            AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k") as client,
        ):
            ask: Any = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
            if is_streamed:
                stream = await client.chat.completions.create(**ask, stream=True)
                said = "".join([part.choices[0].delta.content or "" async for part in stream if part.choices])
            else:
                said = (await client.chat.completions.create(**ask)).choices[0].message.content or ""
    assert said == STAY_ANSWER
