import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from proxy.guard.files import find_files
from proxy.guard.loader import CheckpointError, check_files, load_guard
from proxy.guard.protocol import GuardUnavailable
from tests.guard.checkpoints import random_tensors, small_checkpoint, small_config, write_checkpoint

CONFIG = small_config()


def test_shards_and_a_single_file_give_the_same_weights(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    one = load_guard(str(write_checkpoint(tmp_path / "one", tensors, CONFIG)))
    three = load_guard(str(write_checkpoint(tmp_path / "three", tensors, CONFIG, shards=3)))
    assert torch.equal(one.model.layers[1].qk_norm, three.model.layers[1].qk_norm)
    assert torch.equal(one.model.final_norm, three.model.final_norm)
    assert torch.equal(one.model.prompt.output, three.model.prompt.output)
    assert one.info.model == "one"
    assert one.info.window == 1024


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_float_can_be_computed_in_any_other(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in random_tensors(CONFIG).items()}
    folder = str(write_checkpoint(tmp_path, tensors, CONFIG))
    assert load_guard(folder, dtype="float32").model.dtype == torch.float32
    assert load_guard(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    native = torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16") else torch.float32
    assert load_guard(folder).model.dtype == (native if dtype == torch.bfloat16 else torch.float32)


def test_label_order_of_the_checkpoint_becomes_ours(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    plain = load_guard(str(write_checkpoint(tmp_path / "plain", tensors, CONFIG)))
    labels = {"0": "Unsafe", "1": "Safe", "2": "Controversial"}
    turned = load_guard(str(write_checkpoint(tmp_path / "t", tensors, small_config(response_risk_level_map=labels))))
    assert torch.equal(turned.model.response.output[:3], plain.model.response.output[[1, 0, 2]])


def test_a_tied_output_layer_is_left_out(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG) | {"lm_head.weight": torch.zeros(400, 32)}
    load_guard(str(write_checkpoint(tmp_path, tensors, CONFIG)))


def test_missing_tensor_is_named_with_its_shape(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    del tensors["query_category_head.weight"]
    with pytest.raises(CheckpointError, match=r"query_category_head\.weight is missing; expected shape \(9, 24\)"):
        load_guard(str(write_checkpoint(tmp_path, tensors, CONFIG)))


def test_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(40, 32)
    words = r"model\.layers\.1\.mlp\.up_proj\.weight has shape \(40, 32\); config\.json makes it \(48, 32\)"
    with pytest.raises(CheckpointError, match=words):
        load_guard(str(write_checkpoint(tmp_path, tensors, CONFIG)))


def test_unknown_tensor_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG) | {"model.layers.0.self_attn.sinks": torch.zeros(4)}
    with pytest.raises(CheckpointError, match=r"self_attn\.sinks .* not part of this architecture"):
        load_guard(str(write_checkpoint(tmp_path, tensors, CONFIG)))


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    tensors["model.embed_tokens.weight"] = torch.zeros(400, 32, dtype=torch.int8)
    with pytest.raises(CheckpointError, match=r"model\.embed_tokens\.weight is torch\.int8"):
        load_guard(str(write_checkpoint(tmp_path, tensors, CONFIG)))


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"\x80\x04garbage", lambda _: b""])
def test_damaged_weights_are_an_error_and_not_a_crash(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    file = small_checkpoint(tmp_path) / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        load_guard(str(tmp_path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl"])
def test_pickled_weights_are_refused(tmp_path: Path, name: str) -> None:
    small_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    ran = tmp_path / "ran"
    (tmp_path / name).write_bytes(f"cposix\nsystem\n(S'touch {ran}'\ntR.".encode())
    with pytest.raises(CheckpointError, match=r"only pickled weights .* refused; convert them to safetensors"):
        load_guard(str(tmp_path))
    assert not ran.exists()


def test_a_pickle_under_the_name_of_safetensors_is_refused(tmp_path: Path) -> None:
    small_checkpoint(tmp_path)
    ran = tmp_path / "ran"
    (tmp_path / "model.safetensors").write_bytes(f"cposix\nsystem\n(S'touch {ran}'\ntR.".encode())
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_guard(str(tmp_path))
    assert not ran.exists()


def test_code_in_the_folder_is_never_run(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path, auto_map={"AutoModel": "modeling_qwen3_guard.Qwen3ForGuardModel"})
    (folder / "modeling_qwen3_guard.py").write_text("raise SystemExit('remote code ran')")
    load_guard(str(folder))
    assert not any("modeling_qwen3_guard" in name for name in sys.modules)


def test_an_index_may_not_point_outside_its_folder(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "guard", random_tensors(CONFIG), CONFIG, shards=2)
    save_file({"x": torch.zeros(1)}, tmp_path / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match="not in the folder"):
        load_guard(str(folder))
    (folder / "weights.bin").touch()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "weights.bin"}}))
    with pytest.raises(CheckpointError, match=r"names weights\.bin, not in the folder as \*\.safetensors"):
        load_guard(str(folder))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, r"no config\.json"),
        ("config.json", "{", "not readable JSON"),
        ("config.json", "[]", "must hold an object"),
        ("model.safetensors", None, r"no model\.safetensors"),
        ("model.safetensors.index.json", "{}", "no weight_map"),
    ],
)
def test_a_broken_folder_is_an_error_with_the_file(tmp_path: Path, file: str, content: str | None, words: str) -> None:
    small_checkpoint(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(CheckpointError, match=words):
        load_guard(str(tmp_path))


def test_a_folder_can_be_pinned_to_its_weights(tmp_path: Path) -> None:
    folder = str(small_checkpoint(tmp_path))
    revision = load_guard(folder).info.revision
    assert load_guard(folder, revision=revision).info.revision == revision
    assert load_guard(folder, revision=f"sha256:{revision[:8]}").info.revision == revision
    with pytest.raises(CheckpointError, match="was asked for"):
        load_guard(folder, revision="0123456789ab")


def test_what_is_neither_folder_nor_hub_id_is_refused() -> None:
    for name in ("no such guard", "./missing", "/missing/folder"):
        with pytest.raises(CheckpointError, match="no such folder"):
            load_guard(name)


def test_a_hub_id_that_cannot_be_fetched_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(GuardUnavailable, match=r"hf download Qwen/Qwen3Guard-Stream-0\.6B"):
        load_guard("Qwen/Qwen3Guard-Stream-0.6B", revision="0123")


def test_unknown_dtype_and_device_are_refused(tmp_path: Path) -> None:
    folder = str(small_checkpoint(tmp_path))
    with pytest.raises(CheckpointError, match="dtype 'int4'"):
        load_guard(folder, dtype="int4")
    with pytest.raises(CheckpointError, match="device 'abacus'"):
        load_guard(folder, device="abacus")


def test_the_embedded_guard_loads() -> None:
    loaded = load_guard("embedded")
    assert loaded.info.model == "embedded"
    assert loaded.model.embedding.shape[0] == 151936


def test_a_checkpoint_that_others_load_is_checked_alike(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "small")
    assert check_files(find_files(str(folder), None, {})).vocabulary == 400
    tensors = random_tensors(small_config())
    del tensors["category_head.weight"]
    write_checkpoint(tmp_path / "less", tensors, small_config())
    with pytest.raises(CheckpointError, match=r"less: tensor category_head\.weight is missing"):
        check_files(find_files(str(tmp_path / "less"), None, {}))
