"""The entry point for vLLM, which need not be installed: the name, the place, and what is done there."""

import ast
import importlib
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.guard.checkpoints import SMALL

ROOT = Path(__file__).parent.parent.parent


class Registry:
    def __init__(self) -> None:
        self.models: dict[str, str] = {}

    def get_supported_archs(self) -> list[str]:
        return list(self.models)

    def register_model(self, name: str, place: str) -> None:
        assert name not in self.models
        self.models[name] = place


def test_the_package_tells_vllm_of_the_model_class_once_however_often_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = Registry()
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(ModelRegistry=registry))
    monkeypatch.delitem(sys.modules, "proxy.guard.vllm_plugin", raising=False)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["entry-points"]["vllm.general_plugins"]["weir-guard"].partition(":")
    for _ in range(2):
        getattr(importlib.import_module(module), function)()
    monkeypatch.delitem(sys.modules, "proxy.guard.vllm_plugin")
    ((name, place),) = registry.models.items()
    assert [name] == SMALL["architectures"]
    module, _, wanted = place.partition(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    assert wanted in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
