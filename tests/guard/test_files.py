"""Where a checkpoint's files are. Folders that cannot be loaded are in test_loader.py, pins in test_pins.py."""

import asyncio
import sys
from pathlib import Path

import pytest
from aiohttp import web

from proxy.guard.files import CheckpointError, find_files
from tests.fakes import listening
from tests.guard.checkpoints import small_checkpoint
from tests.reliability.environment import ROOT, environment


def test_a_folder_is_named_and_its_revision_is_of_its_weights(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "small")
    found = find_files(str(folder), None, {})
    assert (found.name, found.folder, found.config["vocab_size"]) == ("small", folder, 400)
    assert [path.name for path in found.weights] == ["model.safetensors"]
    assert find_files(str(folder), f"sha256:{found.revision[:6]}", {}) == found
    with pytest.raises(CheckpointError, match="was asked for"):
        find_files(str(folder), "sha256:000000", {})
    with pytest.raises(CheckpointError, match="no such folder"):
        find_files(str(tmp_path / "none"), None, {})


def test_code_counts_only_where_it_is_wanted(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "small")
    (folder / "modeling.py").write_text("")
    pins = {"config.json": "0" * 64, "model.safetensors": "0" * 64}
    with pytest.raises(CheckpointError, match=r"config\.json has the SHA-256"):
        find_files(str(folder), None, pins)
    with pytest.raises(CheckpointError, match=r"does not name modeling\.py"):
        find_files(str(folder), None, pins, with_code=True)


async def refusal_of(hub: str, folder: Path) -> str:
    """What a process says that asks this hub, whose address is read when its library is loaded."""
    code = "from proxy.guard.files import find_files; find_files('org/guard', None, {})"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env=environment(PYTHONPATH=str(ROOT), HF_ENDPOINT=hub, HF_HOME=str(folder), HF_HUB_OFFLINE="0"),
        stderr=asyncio.subprocess.PIPE,
    )
    return (await process.communicate())[1].decode().splitlines()[-1]


@pytest.mark.parametrize(
    ("status", "code", "why"),
    [
        (404, "RepoNotFound", "the hub has no model of this name"),
        (404, "RevisionNotFound", "the hub has no such revision of it"),
        (403, "GatedRepo", "it is gated"),
        (500, "", "the hub was not reached"),
    ],
)
async def test_a_model_that_the_hub_does_not_give_is_told_with_the_reason(
    status: int, code: str, why: str, tmp_path: Path
) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"X-Error-Code": code} if code else {})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    async with listening(app) as hub:
        said = await refusal_of(hub, tmp_path)
    assert f"guard org/guard is not in the local cache and could not be downloaded: {why}" in said
    assert "`hf download org/guard`" in said
