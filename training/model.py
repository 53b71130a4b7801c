"""The guard as it is trained: Qwen3's blocks and Qwen3Guard's heads, over whole padded batches.

Names of parameters are the checkpoint's, so exporting is copying. Only the embedding differs: it is
kept in two parts, a row of its own for tokens that the data names, and a projection of what the
token's text means, which every token has (`training/features.py`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.vocabulary import TOKENS


def guard_config(hidden: int = 128, layers: int = 4) -> dict[str, Any]:
    """config.json's architecture keys; the words of the labels are added on export."""
    return {
        "architectures": ["Qwen3ForGuardModel"],
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 32,
        "num_key_value_heads": hidden // 64,
        "head_dim": 32,
        "intermediate_size": hidden * 3,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "rope_scaling": None,
        "max_position_embeddings": 32_768,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "torch_dtype": "float32",
        "guard_inner_size": hidden,
        "num_risk_level": 3,
        "num_category": 8,
        "num_query_risk_level": 3,
        "num_query_category": 9,
    }


class Embedding(nn.Module):
    features: Tensor
    index: Tensor

    def __init__(self, features: Tensor, own: Tensor, hidden: int) -> None:
        super().__init__()
        self.register_buffer("features", features, persistent=False)
        index = torch.zeros(TOKENS, dtype=torch.long)
        index[own] = torch.arange(1, len(own) + 1)
        self.register_buffer("index", index, persistent=False)
        self.rows = nn.Parameter(torch.zeros(len(own) + 1, hidden))
        self.project = nn.Linear(features.shape[1], hidden, bias=False)
        with torch.no_grad():  # the first components of the meaning go straight through
            self.project.weight.normal_(0, 0.05)
            width = min(hidden, 128, features.shape[1])
            self.project.weight[:width, :width] += torch.eye(width) * 0.5

    def forward(self, ids: Tensor) -> Tensor:
        row = self.index[ids]
        own = functional.embedding(row, self.rows) * (row > 0)[..., None]
        meant: Tensor = self.project(self.features[ids])
        return own + meant


class Attention(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, self.head_dim = config["hidden_size"], config["head_dim"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj = nn.Linear(hidden, heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self.head_dim, hidden, bias=False)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=config["rms_norm_eps"])
        self.k_norm = nn.RMSNorm(self.head_dim, eps=config["rms_norm_eps"])

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, _ = x.shape
        shape = (rows, length, -1, self.head_dim)
        query = rotate(self.q_norm(self.q_proj(x).view(shape)).transpose(1, 2), cos, sin)
        key = rotate(self.k_norm(self.k_proj(x).view(shape)).transpose(1, 2), cos, sin)
        value = self.v_proj(x).view(shape).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        result: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
        return result


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Feedforward(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


class Block(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config["hidden_size"], eps=config["rms_norm_eps"])
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config["hidden_size"], eps=config["rms_norm_eps"])
        self.mlp = Feedforward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class Backbone(nn.Module):
    frequencies: Tensor

    def __init__(self, config: dict[str, Any], embedding: nn.Module, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = embedding
        self.layers = nn.ModuleList(Block(config) for _ in range(config["num_hidden_layers"]))
        self.norm = nn.RMSNorm(config["hidden_size"], eps=config["rms_norm_eps"])
        self.dropout = dropout
        half = torch.arange(0, config["head_dim"], 2) / config["head_dim"]
        self.register_buffer("frequencies", config["rope_theta"] ** -half, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids)
        if self.training:  # whole tokens vanish, so that no single word decides
            x = x * (torch.rand(ids.shape) > self.dropout)[..., None]
            x = functional.dropout(x, self.dropout)
        angles = torch.outer(torch.arange(ids.shape[1]), self.frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        result: Tensor = self.norm(x)
        return result


class Guard(nn.Module):
    def __init__(self, config: dict[str, Any], embedding: nn.Module, dropout: float = 0.08) -> None:
        super().__init__()
        hidden, inner, eps = config["hidden_size"], config["guard_inner_size"], config["rms_norm_eps"]
        self.model = Backbone(config, embedding, dropout)
        self.risk_level_category_pre = nn.Linear(hidden, inner, bias=False)
        self.risk_level_category_layernorm = nn.RMSNorm(inner, eps=eps)
        self.risk_level_head = nn.Linear(inner, config["num_risk_level"], bias=False)
        self.category_head = nn.Linear(inner, config["num_category"], bias=False)
        self.query_risk_level_category_pre = nn.Linear(hidden, inner, bias=False)
        self.query_risk_level_category_layernorm = nn.RMSNorm(inner, eps=eps)
        self.query_risk_level_head = nn.Linear(inner, config["num_query_risk_level"], bias=False)
        self.query_category_head = nn.Linear(inner, config["num_query_category"], bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2 and "embed_tokens" not in name:
                nn.init.normal_(parameter, std=0.05)

    def reply(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of risk and category for tokens of an answer."""
        x = self.risk_level_category_layernorm(self.risk_level_category_pre(hidden))
        return self.risk_level_head(x), self.category_head(x)

    def query(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The same for tokens of a prompt."""
        x = self.query_risk_level_category_layernorm(self.query_risk_level_category_pre(hidden))
        return self.query_risk_level_head(x), self.query_category_head(x)
