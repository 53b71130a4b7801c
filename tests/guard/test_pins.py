"""A guard's files are the ones that were pinned, or it is not loaded."""

import hashlib
import json
from pathlib import Path

import pytest

from proxy.guard.loader import CheckpointError, load_guard
from proxy.guard.pins import HASH_BLOCK_BYTES, pin_fault, sha256_of
from proxy.guard.protocol import GuardUnavailable
from proxy.guards import open_guard
from proxy.settings import GuardSettings, Settings
from tests.guard.checkpoints import random_tensors, small_checkpoint, small_config, write_checkpoint

READ = ("config.json", "model.safetensors")


def pins_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def change_a_byte(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_guard_loads_whose_files_are_the_pinned_ones(tmp_path: Path, shards: int) -> None:
    folder = write_checkpoint(tmp_path / "guard", random_tensors(small_config()), small_config(), shards=shards)
    assert load_guard(str(folder), sha256=pins_of(folder)).info.model == "guard"


@pytest.mark.parametrize(("name", "at"), [("model.safetensors", -1), ("model.safetensors", 0), ("config.json", -2)])
def test_one_changed_byte_is_refused_before_the_file_is_read(tmp_path: Path, name: str, at: int) -> None:
    folder = small_checkpoint(tmp_path)
    pins = pins_of(folder)
    change_a_byte(folder / name, at)
    with pytest.raises(CheckpointError, match=f"{name} has the SHA-256 [0-9a-f]{{64}}, but guard.sha256 says"):
        load_guard(str(folder), sha256=pins)


def test_verdicts_that_config_swaps_are_refused_though_the_weights_are_right(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path)
    pins = pins_of(folder)
    swapped = small_config(response_risk_level_map={"0": "Unsafe", "1": "Safe", "2": "Controversial"})
    (folder / "config.json").write_text(json.dumps(swapped))
    load_guard(str(folder))
    with pytest.raises(CheckpointError, match=r"config\.json has the SHA-256"):
        load_guard(str(folder), sha256=pins)


def test_a_file_that_would_be_read_and_is_not_pinned_is_refused(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path)
    weights = {"model.safetensors": pins_of(folder)["model.safetensors"]}
    with pytest.raises(CheckpointError, match=r"guard\.sha256 does not name config\.json, which would be read"):
        load_guard(str(folder), sha256=weights)
    pins = pins_of(folder)
    # An index turns the loader to other files than those that are pinned.
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "other.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"does not name model\.safetensors\.index\.json"):
        load_guard(str(folder), sha256=pins)


def test_a_pinned_file_that_is_missing_or_no_file_is_refused(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path)
    pins = pins_of(folder) | {"extra.json": "0" * 64}
    with pytest.raises(CheckpointError, match=r"names extra\.json, which cannot be read \(no such file"):
        load_guard(str(folder), sha256=pins)
    (folder / "extra.json").mkdir()
    assert "which cannot be read" in (pin_fault(folder, pins, READ) or "")


def test_the_embedded_guard_has_no_files_to_pin() -> None:
    with pytest.raises(CheckpointError, match="the embedded guard has none"):
        load_guard("embedded", sha256={"model.safetensors": "0" * 64})


@pytest.mark.parametrize("process", [False, True])
async def test_the_settings_pin_the_guard_in_a_thread_and_in_a_process(tmp_path: Path, process: bool) -> None:
    folder = small_checkpoint(tmp_path)
    wanted = GuardSettings(model=str(folder), threads=1, device="cpu", process=process, sha256=pins_of(folder))
    guard = await open_guard(Settings(guard=wanted))
    await guard.close()
    change_a_byte(folder / "model.safetensors", -1)
    with pytest.raises(GuardUnavailable, match="is not the file that was pinned"):
        await open_guard(Settings(guard=wanted))


@pytest.mark.parametrize("size", [0, 1, HASH_BLOCK_BYTES, HASH_BLOCK_BYTES + 1])
def test_files_are_hashed_as_one_text_whatever_their_size(tmp_path: Path, size: int) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a" * size)
    two.write_bytes(b"b")
    assert sha256_of([one, two]) == hashlib.sha256(b"a" * size + b"b").hexdigest()
