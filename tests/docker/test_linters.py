"""The files in docker/ by programs that others wrote for it: hadolint, Kubernetes' schemas, Grafana's own classes.

`make containers` installs them and runs it.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docker.test_deployment import DOCKERFILES, MANIFESTS, ROOT

PROGRAMS = Path(__file__).parent / ".venv-containers" / "bin"
pytestmark = pytest.mark.skipif(
    "WEIR_CONTAINERS" not in os.environ or not (PROGRAMS / "hadolint").exists(), reason="`make containers` runs it"
)
# The compiler that Triton calls is whichever the base image's Debian has.
PASSED_OVER = ["DL3008"]
VERSIONS = ["1.29", "1.37"]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAMS / program, *arguments], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    ignored = [flag for rule in PASSED_OVER for flag in ("--ignore", rule)]
    done = run("hadolint", "--no-color", *ignored, str(file))
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_manifests_are_of_the_schemas_of_kubernetes(file: Path, version: str) -> None:
    done = run("kubernetes-validate", "--strict", "--kubernetes-version", version, str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed ") == file.read_text().count("\nkind: ")


def test_a_manifest_with_a_mistake_is_found(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(MANIFESTS[0].read_text().replace("runAsNonRoot", "runAsNobody"))
    done = run("kubernetes-validate", "--strict", str(file))
    assert done.returncode != 0
    assert "runAsNobody" in done.stdout + done.stderr


def missing_of(given: Any, read: Any) -> list[str]:
    """What of `given` is not in `read`, which may have more."""
    if isinstance(given, dict):
        return [text for key in given for text in ([key] if key not in read else missing_of(given[key], read[key]))]
    if isinstance(given, list):
        assert len(given) == len(read)
        return [text for one, other in zip(given, read, strict=True) for text in missing_of(one, other)]
    return [] if given == read else [f"{given!r}"]


def test_grafana_s_classes_know_every_field_of_the_dashboard() -> None:
    file = ROOT / "docker" / "grafana" / "dashboards" / "weir.json"
    done = run("python", str(Path(__file__).parent / "read_dashboard.py"), str(file))
    assert done.returncode == 0, done.stderr
    assert missing_of(json.loads(file.read_text()), json.loads(done.stdout)) == []
    assert missing_of({"panels": [{"titel": "x"}]}, {"panels": [{}]}) == ["titel"]
