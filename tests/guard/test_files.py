"""Where a checkpoint's files are. Folders that cannot be loaded are in test_loader.py, pins in test_pins.py."""

from pathlib import Path

import pytest

from proxy.guard.files import CheckpointError, find_files
from tests.guard.checkpoints import small_checkpoint


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
