"""Qwen3 and its two twins of classification heads as a model of vLLM, which gives a row of logits a token."""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.pooler.tokwise import pooler_for_token_classify
from vllm.model_executor.models.interfaces_base import default_pooling_type
from vllm.model_executor.models.qwen3 import Qwen3Model
from vllm.model_executor.models.utils import AutoWeightsLoader, maybe_prefix

from proxy.guard.architecture import read_architecture

# Some checkpoints have it, and a guard writes no text.
IGNORED = "lm_head."


@default_pooling_type(tok_pooling_type="ALL")
class Qwen3ForGuardModel(nn.Module):
    """Names of modules are those of a released checkpoint's tensors."""

    is_pooling_model = True
    hf_to_vllm_mapper = Qwen3Model.hf_to_vllm_mapper
    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        model = vllm_config.model_config
        self.config = model.hf_config
        shape = read_architecture(self.config.to_dict())
        self.model = Qwen3Model(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        # The heads are small: in the type that vLLM gives heads, float32 where the device has it.
        self._dtype = model.head_dtype
        for name, categories in (("", shape.category_order), ("query_", shape.prompt_category_order)):
            self._add(f"{name}risk_level_category_pre", shape.hidden, shape.inner)
            norm = RMSNorm(shape.inner, eps=shape.norm_eps, dtype=self._dtype)
            self.add_module(f"{name}risk_level_category_layernorm", norm)
            self._add(f"{name}risk_level_head", shape.inner, len(shape.risk_order))
            self._add(f"{name}category_head", shape.inner, len(categories))
        self.pooler = pooler_for_token_classify(model.pooler_config)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = self.model.embed_input_ids(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Logits [T, 23]: levels and categories of an answer, then those of a prompt, in the checkpoint's order."""
        hidden = self.model(input_ids, positions, intermediate_tensors, inputs_embeds).to(self._dtype)
        return torch.cat([part for name in ("", "query_") for part in self._heads(name, hidden)], dim=1)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Names of what was loaded; vLLM refuses a checkpoint without one of ours."""
        wanted = ((name, tensor) for name, tensor in weights if not name.startswith(IGNORED))
        loaded: set[str] = AutoWeightsLoader(self).load_weights(wanted)
        return loaded

    def _add(self, name: str, columns: int, rows: int) -> None:
        self.add_module(name, nn.Linear(columns, rows, bias=False, dtype=self._dtype))

    def _heads(self, name: str, hidden: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.get_submodule(f"{name}risk_level_category_pre")(hidden)
        inner = self.get_submodule(f"{name}risk_level_category_layernorm")(inner)
        levels = self.get_submodule(f"{name}risk_level_head")(inner)
        return levels, self.get_submodule(f"{name}category_head")(inner)
