from pathlib import Path

import pytest

from proxy.config import ConfigError, load_settings
from proxy.guard_settings import GuardSettings, guard_faults

TRUSTED = {"backend": "remote-code", "trust_remote_code": True, "model": "folder"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trust_remote_code": False}, r"\[guard\] trust_remote_code must be true for backend"),
        ({"model": "embedded"}, r"\[guard\] model must be a folder or a hub id"),
        ({"address": "unix:/g"}, r'\[guard\] address is for backend = "local" or "vllm", and backend is "remote-code"'),
        ({"replicas": ["unix:/g"]}, r'\[guard\] replicas is for backend = "local" or "vllm", and backend is "remote'),
        ({"vllm": {"block_size": 32}}, r'\[guard\] vllm is for backend = "vllm", and backend is "remote-code"'),
        ({"backend": "other"}, r"backend must be"),
    ],
)
def test_keys_that_do_not_fit_are_refused_with_the_reason(changes: dict[str, object], said: str) -> None:
    overrides = {f"guard.{key}": value for key, value in (TRUSTED | changes).items()}
    with pytest.raises(ConfigError, match=said):
        load_settings(overrides=overrides, environ={})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sglang_url": None}, r"\[guard\] sglang_url must name the server"),
        ({"window": None}, r"\[guard\] window must be set"),
        ({"sglang_url": "gpu:30000"}, "must start with http"),
        ({"sglang_url": "http://user:word@gpu"}, "without a password"),
        ({"sglang_api": "other"}, "sglang_api must be"),
    ],
)
def test_an_sglang_server_needs_its_address_and_its_window(changes: dict[str, object], said: str) -> None:
    whole = {"backend": "sglang", "sglang_url": "http://gpu:30000", "window": 8192}
    assert not list(guard_faults(GuardSettings.model_validate(whole)))
    overrides = {f"guard.{key}": value for key, value in (whole | changes).items() if value is not None}
    with pytest.raises(ConfigError, match=said) as caught:
        load_settings(overrides=overrides, environ={})
    assert "word@" not in str(caught.value)


def test_remote_code_is_for_one_process() -> None:
    overrides = {f"guard.{key}": value for key, value in TRUSTED.items()} | {"server.workers": 2}
    with pytest.raises(ConfigError, match=r"\[server\] workers is more than 1, and needs another \[guard\] backend"):
        load_settings(overrides=overrides, environ={})


def test_what_fits_stands() -> None:
    assert not list(guard_faults(GuardSettings()))
    assert not list(guard_faults(GuardSettings.model_validate(TRUSTED)))
    assert GuardSettings.model_validate(TRUSTED).is_in_a_thread
    assert not GuardSettings().is_in_a_thread
    assert GuardSettings(process=False).is_in_a_thread
    assert not GuardSettings(process=False, address="unix:/g").is_in_a_thread


def test_a_guard_may_be_several_replicas_of_either_kind() -> None:
    for backend in ("local", "vllm"):
        found = GuardSettings.model_validate({"backend": backend, "replicas": ["unix:/a", "tcp://gpu-1:9400"]})
        assert not list(guard_faults(found))
        assert found.is_elsewhere
        assert not found.is_in_a_thread
    environ = {"WEIR_GUARD__REPLICAS": "unix:/a, tcp://gpu-1:9400"}
    assert load_settings(environ=environ).guard.replicas == ("unix:/a", "tcp://gpu-1:9400")
    with pytest.raises(ConfigError, match="replicas cannot be set beside address"):
        load_settings(environ=environ | {"WEIR_GUARD__ADDRESS": "unix:/a"})
    with pytest.raises(ConfigError, match="must be unix:PATH or tcp://HOST:PORT"):
        load_settings(environ={"WEIR_GUARD__REPLICAS": "gpu-1:9400"})


def test_arguments_of_vllm_are_what_they_look_like(tmp_path: Path) -> None:
    file = tmp_path / "weir.toml"
    file.write_text('[guard]\nbackend = "vllm"\n[guard.vllm]\nenforce_eager = true\nkv_cache_dtype = "fp8"\n')
    environ = {"WEIR_GUARD__VLLM__TENSOR_PARALLEL_SIZE": "2", "WEIR_GUARD__VLLM__GPU_MEMORY_UTILIZATION": "0.5"}
    assert load_settings(file, environ=environ).guard.vllm == {
        "enforce_eager": True,
        "kv_cache_dtype": "fp8",
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.5,
    }
    with pytest.raises(ConfigError, match="must be an engine argument of vLLM"):
        load_settings(environ={"WEIR_GUARD__BACKEND": "vllm", "WEIR_GUARD__VLLM__BLOCK-SIZE": "16"})
