import pytest

from proxy.guard.architecture import ConfigError, class_of, read_architecture, tensor_shapes
from proxy.risk import RESPONSE_CATEGORIES
from tests.guard.checkpoints import small_config

RELEASED_06B = {
    "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "intermediate_size": 3072, "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000, "rope_scaling": None, "guard_inner_size": 512, "hidden_act": "silu",
    "use_sliding_window": False, "sliding_window": None, "max_window_layers": 28,
    "num_risk_level": 3, "num_category": 8, "num_query_risk_level": 3, "num_query_category": 9,
}  # fmt: skip


def test_reads_the_released_sizes() -> None:
    shape = read_architecture(RELEASED_06B)
    assert (shape.hidden, shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (1024, 28, 16, 8, 128)
    assert shape.rope_theta == 1e6
    assert shape.window == 32768
    assert shape.kv_bytes_per_token(2) == 112 << 10
    assert shape.category_order == tuple(range(8))
    assert shape.prompt_category_order == tuple(range(9))


def test_reads_rope_of_transformers_5_and_4() -> None:
    five = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    assert read_architecture(small_config(**five, rope_theta=None)).rope_theta == 5e5
    four = read_architecture(small_config(rope_scaling={"type": "linear", "factor": 4.0}))
    assert (four.rope_theta, four.rope_factor) == (1e6, 4.0)


def test_a_head_dim_that_is_not_named_follows_from_the_sizes() -> None:
    config = small_config()
    del config["head_dim"]
    assert read_architecture(config).head_dim == 8


def test_label_maps_name_the_order_of_classes() -> None:
    labels = {"0": "Unsafe", "1": "Safe", "2": "Controversial"}
    assert read_architecture(small_config(response_risk_level_map=labels)).risk_order == (1, 0, 2)
    by_name = {"Safe": 2, "Unsafe": 0, "Controversial": 1}
    assert read_architecture(small_config(query_risk_level_map=by_name)).prompt_risk_order == (2, 0, 1)


def test_longer_names_of_the_same_classes_are_known() -> None:
    labels = ["Violent", "Sexual Content or Sexual Acts", "Suicide & Self-Harm", "Politically Sensitive Topics", "PII",
              "Copyright Violation", "Non-violent Illegal Acts", "Unethical Acts"]  # fmt: skip
    assert read_architecture(small_config(response_category_map=labels)).category_order == tuple(range(8))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"guard_inner_size": None}, "guard_inner_size must be a positive integer"),
        ({"hidden_size": "32"}, "hidden_size must be a positive integer, found '32'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding-window"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope type 'yarn'"),
        ({"rope_scaling": [1]}, "must be an object"),
        ({"rope_theta": None}, "rope_theta must be a positive number"),
        ({"num_key_value_heads": 3}, "not a multiple of 3"),
        ({"head_dim": 15}, "odd"),
        ({"num_category": 9}, "num_category is 9, expected 8"),
        ({"response_risk_level_map": {"0": "Safe", "1": "Bad", "2": "Controversial"}}, "names .*Bad"),
        ({"response_risk_level_map": "Safe"}, "must map class numbers"),
        ({"response_risk_level_map": {"Safe": "zero"}}, "must map class numbers"),
    ],
)
def test_what_is_not_supported_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_architecture(small_config(**changes))


def test_a_generative_guard_is_refused_with_the_reason() -> None:
    config = small_config()
    del config["guard_inner_size"]
    with pytest.raises(ConfigError, match="not a Qwen3Guard-Stream checkpoint"):
        read_architecture(config)


def test_attention_bias_adds_its_tensors() -> None:
    names = tensor_shapes(read_architecture(small_config(attention_bias=True)))
    assert names["model.layers.1.self_attn.k_proj.bias"] == (32,)
    assert names["model.layers.0.self_attn.o_proj.bias"] == (32,)
    assert "model.layers.0.self_attn.q_proj.bias" not in tensor_shapes(read_architecture(small_config()))


def test_a_class_has_a_number_by_each_of_its_names() -> None:
    assert (
        class_of("Politically Sensitive Topics", RESPONSE_CATEGORIES) == class_of("Political", RESPONSE_CATEGORIES) == 3
    )
    with pytest.raises(ValueError, match="not in list"):
        class_of("None", RESPONSE_CATEGORIES)
