"""What a guard checkpoint's config.json says: sizes, norms, rotary angles, classes. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.risk import PROMPT_CATEGORIES, RESPONSE_CATEGORIES, RISK_LEVELS

Shapes = dict[str, tuple[int, ...]]  # by tensor name


class ConfigError(ValueError):
    """config.json describes something this engine does not compute."""


# Longer names that cards and papers of the same family use for the same classes.
ALIASES = {
    "sexual content or sexual acts": "sexual content",
    "suicide and self harm": "self harm",
    "politically sensitive topics": "political",
    "personally identifiable information": "pii",
    "copyright violation": "copyright",
    "non violent illegal acts": "illegal acts",
    "unethical acts": "unethical",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """Everything the forward pass needs to know; one field a fact of config.json."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    window: int  # positions the rotary angles were trained for
    norm_eps: float
    rope_theta: float
    rope_factor: float  # positions are divided by it; 1 is the plain rotary embedding
    attention_bias: bool
    inner: int  # width of the classification heads
    # Class i of ours is row `orders[name][i]` of that head in the checkpoint.
    risk_order: tuple[int, ...]
    category_order: tuple[int, ...]
    prompt_risk_order: tuple[int, ...]
    prompt_category_order: tuple[int, ...]

    def kv_bytes_per_token(self, element_bytes: int) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """Read the contents of config.json. Raises ConfigError for anything missing or not supported."""
    _refuse_other_models(config)
    heads = _integer(config, "num_attention_heads")
    hidden = _integer(config, "hidden_size")
    theta, factor = _rope(config)
    architecture = Architecture(
        hidden=hidden,
        layers=_integer(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_integer(config, "num_key_value_heads", heads),
        head_dim=_integer(config, "head_dim", hidden // heads),
        intermediate=_integer(config, "intermediate_size"),
        vocabulary=_integer(config, "vocab_size"),
        window=_integer(config, "max_position_embeddings"),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope_theta=theta,
        rope_factor=factor,
        attention_bias=bool(config.get("attention_bias", False)),
        inner=_integer(config, "guard_inner_size"),
        risk_order=_order(config, "num_risk_level", "response_risk_level_map", RISK_LEVELS),
        category_order=_order(config, "num_category", "response_category_map", RESPONSE_CATEGORIES),
        prompt_risk_order=_order(config, "num_query_risk_level", "query_risk_level_map", RISK_LEVELS),
        prompt_category_order=_order(config, "num_query_category", "query_category_map", PROMPT_CATEGORIES),
    )
    if architecture.heads % architecture.kv_heads:
        raise ConfigError(f"num_attention_heads {heads} is not a multiple of {architecture.kv_heads} key-value heads")
    if architecture.head_dim % 2:
        raise ConfigError(f"head_dim {architecture.head_dim} is odd; rotary embedding needs pairs")
    return architecture


def tensor_shapes(shape: Architecture) -> Shapes:
    """Name and shape of every tensor of a released checkpoint."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    shapes: Shapes = {
        "model.embed_tokens.weight": (shape.vocabulary, shape.hidden),
        "model.norm.weight": (shape.hidden,),
    }
    for index in range(shape.layers):
        layer = f"model.layers.{index}."
        attention = layer + "self_attn."
        shapes |= {
            layer + "input_layernorm.weight": (shape.hidden,),
            layer + "post_attention_layernorm.weight": (shape.hidden,),
            layer + "mlp.gate_proj.weight": (shape.intermediate, shape.hidden),
            layer + "mlp.up_proj.weight": (shape.intermediate, shape.hidden),
            layer + "mlp.down_proj.weight": (shape.hidden, shape.intermediate),
            attention + "q_norm.weight": (shape.head_dim,),
            attention + "k_norm.weight": (shape.head_dim,),
        }
        for name, rows, columns in (("q", q, shape.hidden), ("k", kv, shape.hidden), ("v", kv, shape.hidden)):
            shapes[f"{attention}{name}_proj.weight"] = (rows, columns)
            if shape.attention_bias:
                shapes[f"{attention}{name}_proj.bias"] = (rows,)
        shapes[attention + "o_proj.weight"] = (shape.hidden, q)
        if shape.attention_bias:
            shapes[attention + "o_proj.bias"] = (shape.hidden,)
    for prefix, categories in (("", shape.category_order), ("query_", shape.prompt_category_order)):
        shapes |= {
            prefix + "risk_level_category_pre.weight": (shape.inner, shape.hidden),
            prefix + "risk_level_category_layernorm.weight": (shape.inner,),
            prefix + "risk_level_head.weight": (len(RISK_LEVELS), shape.inner),
            prefix + "category_head.weight": (len(categories), shape.inner),
        }
    return shapes


def _refuse_other_models(config: Mapping[str, Any]) -> None:
    if "guard_inner_size" not in config:
        raise ConfigError(
            "config.json has no guard_inner_size: this is not a Qwen3Guard-Stream checkpoint "
            "(Qwen3Guard-Gen writes its verdict as text and cannot judge single tokens)"
        )
    if config.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"hidden_act {config['hidden_act']!r} is not supported, only 'silu'")
    layer_types = config.get("layer_types") or []
    if config.get("use_sliding_window") or any(kind != "full_attention" for kind in layer_types):
        raise ConfigError("sliding-window attention layers are not supported")
    if config.get("quantization_config"):
        raise ConfigError("quantized checkpoints are not supported; use the bf16 one")


def _integer(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"config.json: {key} must be a positive integer, found {value!r}")
    return value


def _rope(config: Mapping[str, Any]) -> tuple[float, float]:
    """theta and factor, from `rope_parameters` (transformers 5) or `rope_theta` + `rope_scaling` (4)."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ConfigError(f"config.json: rope parameters must be an object, found {rope!r}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear"):
        raise ConfigError(f"rope type {kind!r} is not supported, only 'default' and 'linear'")
    theta = rope.get("rope_theta", config.get("rope_theta"))
    if not isinstance(theta, int | float) or theta <= 0:
        raise ConfigError(f"config.json: rope_theta must be a positive number, found {theta!r}")
    factor = rope.get("factor", 1.0) if kind == "linear" else 1.0
    return float(theta), float(factor)


def _order(config: Mapping[str, Any], size_key: str, map_key: str, classes: Sequence[str]) -> tuple[int, ...]:
    """Where each of `classes` sits in the checkpoint's head; refuses any other set of classes."""
    size = config.get(size_key, len(classes))
    if size != len(classes):
        raise ConfigError(f"config.json: {size_key} is {size}, expected {len(classes)} ({', '.join(classes)})")
    labels = config.get(map_key)
    if labels is None:
        return tuple(range(len(classes)))
    found = _labels(labels, map_key)
    wanted = [_plain(name) for name in classes]
    if sorted(found) != sorted(wanted):
        raise ConfigError(f"config.json: {map_key} names {labels!r}, expected the classes {', '.join(classes)}")
    return tuple(found.index(name) for name in wanted)


def _labels(labels: object, map_key: str) -> list[str]:
    """The plain names by class number; the map may be {"0": name}, {name: 0} or a list."""
    if isinstance(labels, Mapping):
        pairs = [(key, value) if str(key).isdigit() else (value, key) for key, value in labels.items()]
    elif isinstance(labels, list):
        pairs = list(enumerate(labels))
    else:
        raise ConfigError(f"config.json: {map_key} must map class numbers to names, found {labels!r}")
    try:
        return [_plain(str(name)) for _, name in sorted((int(number), name) for number, name in pairs)]
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"config.json: {map_key} must map class numbers to names, found {labels!r}") from exc


def _plain(name: str) -> str:
    words = name.lower().replace("&", " and ").replace("-", " ").replace("_", " ").split()
    plain = " ".join(words)
    return ALIASES.get(plain, plain)


def class_of(name: str, classes: Sequence[str]) -> int:
    """The number of a class by any of its known names. Raises ValueError for another one."""
    return [_plain(one) for one in classes].index(_plain(name))
