"""`config.json` becomes an ImageGPTConfig, or one error that names every problem."""

from typing import Any

import pytest

from igpt_export.checkpoint.config import (
    ACTIVATION_NAMES,
    HUB_IDS,
    VARIANTS,
    architectures_from_hf,
    classifier_from_hf,
    config_from_hf,
    hub_id,
)
from igpt_runtime.bundle.config import Classifier, ImageGPTConfig
from igpt_runtime.errors import CheckpointError, OptionError

MINIMAL = {"model_type": "imagegpt"}


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        config_from_hf({**MINIMAL, **fields}, "some/config.json")
    message = str(caught.value)
    assert message.startswith("some/config.json: ")
    assert "\n" not in message
    return message


def test_missing_fields_take_the_defaults_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.ImageGPTConfig()
    ours = config_from_hf(MINIMAL, "")
    assert ours == ImageGPTConfig()
    for field in ImageGPTConfig.__dataclass_fields__:
        assert getattr(ours, field) == getattr(theirs, field), field


def test_everything_transformers_writes_is_understood() -> None:
    transformers = pytest.importorskip("transformers")
    written = transformers.ImageGPTConfig(n_inner=100, n_layer=3, reorder_and_upcast_attn=True).to_dict()
    assert config_from_hf(written, "") == ImageGPTConfig(n_inner=100, n_layer=3, reorder_and_upcast_attn=True)


def test_activations_are_those_of_the_model() -> None:
    from igpt_export.model.model import ACTIVATIONS

    assert set(ACTIVATION_NAMES) == set(ACTIVATIONS)


@pytest.mark.parametrize(
    "fields",
    [
        {"vocab_size": 17},
        {"n_positions": 64},
        {"n_embd": 1024},
        {"n_layer": 1},
        {"n_head": 4},
        {"n_inner": 7},
        {"layer_norm_epsilon": 1},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        *({"activation_function": name} for name in ACTIVATION_NAMES),
    ],
    ids=str,
)
def test_fields_are_honoured(fields: dict[str, Any]) -> None:
    assert config_from_hf({**MINIMAL, **fields}, "") == ImageGPTConfig(**fields)


def test_other_names_of_fields_are_understood() -> None:
    names = {"hidden_size": 64, "max_position_embeddings": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
    expected = ImageGPTConfig(n_embd=64, n_positions=16, n_head=2, n_layer=3)
    assert config_from_hf({**MINIMAL, **names}, "") == expected
    assert config_from_hf({**MINIMAL, **names, "n_embd": 64}, "") == expected
    assert "n_embd is 32, but hidden_size, its other name, is 64" in refusal({"n_embd": 32, "hidden_size": 64})


@pytest.mark.parametrize(
    "fields",
    [
        {"resid_pdrop": 0.5, "initializer_range": 1, "use_cache": False, "bos_token_id": 50256, "n_ctx": 1024},
        {"is_decoder": True, "num_beams": 4, "temperature": 2.0, "do_sample": True, "top_k": 3},
        {"torch_dtype": "float16", "dtype": "float16", "transformers_version": "9", "_name_or_path": "/x", "task": "x"},
        {"add_cross_attention": False, "tie_word_embeddings": False, "pruned_heads": {}, "quantization_config": None},
        {
            "id2label": {"0": "a"},
            "probe_layers": [1],
            "probe_protocol": "hf",
            "author": "me",
            "summary_type": "cls_index",
        },
    ],
)
def test_what_does_not_change_the_arithmetic_is_ignored(fields: dict[str, Any]) -> None:
    assert config_from_hf({**MINIMAL, **fields}, "") == ImageGPTConfig()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2', not 'imagegpt'"),
        ({"model_type": None}, "model_type is null"),
        ({"vocab_size": 1}, "vocab_size is 1, not an integer from 2 to"),
        ({"n_positions": 0}, "n_positions is 0, not an integer from 1 to"),
        ({"n_layer": 2.0}, "n_layer is 2.0, not an integer"),
        ({"n_layer": True}, "n_layer is true, not an integer"),
        ({"n_layer": 10**9}, "n_layer is 1000000000, not an integer from 1 to 4096"),
        ({"n_head": "8"}, "n_head is '8', not an integer"),
        ({"n_embd": None}, "n_embd is null, not an integer"),
        ({"n_inner": -4}, "n_inner is -4, not an integer"),
        ({"n_embd": 100}, "n_embd 100 is not divisible by n_head 8"),
        ({"activation_function": "swish"}, "activation_function is 'swish', none of quick_gelu, gelu_new, gelu, relu"),
        ({"activation_function": ["relu"]}, "activation_function is ['relu'], none of"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon is 0, not a number above 0"),
        ({"layer_norm_epsilon": float("inf")}, "layer_norm_epsilon is inf, not a number"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan, not a number"),
        ({"layer_norm_epsilon": 10**400}, "layer_norm_epsilon is 1000"),
        ({"layer_norm_epsilon": True}, "layer_norm_epsilon is true, not a number"),
        ({"scale_attn_weights": 1}, "scale_attn_weights is 1, neither true nor false"),
        ({"scale_attn_by_inverse_layer_idx": "yes"}, "scale_attn_by_inverse_layer_idx is 'yes', neither"),
        ({"reorder_and_upcast_attn": None}, "reorder_and_upcast_attn is null, neither"),
        ({"add_cross_attention": True}, "add_cross_attention is true, which is not supported (only false is)"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is true, which is not supported"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings is 0, which is not supported"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder is true"),
        ({"is_causal": False}, "is_causal is false, which is not supported (only true is)"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is {'0': [1]}"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"per_layer_config": {"0": {}}}, "per_layer_config is"),
        ({"n_layers": 3, "rope_theta": 1.0}, "fields that ImageGPT does not have: n_layers, rope_theta"),
    ],
)
def test_refusals_name_the_field(fields: dict[str, Any], expected: str) -> None:
    assert expected in refusal(fields)


def test_one_refusal_lists_every_problem() -> None:
    message = refusal(
        {"n_head": 0, "n_embd": 0, "activation_function": "x\ny", "add_cross_attention": True, "n_l\n": 1}
    )
    for field in ("n_head is 0", "n_embd is 0", "activation_function", "add_cross_attention", "n_l"):
        assert field in message


def test_variants() -> None:
    shapes = {name: (config.n_layer, config.n_embd, config.n_head) for name, config in VARIANTS.items()}
    assert shapes["small"] == (24, 512, 8)
    assert shapes["medium"] == (36, 1024, 8)
    assert shapes["large"] == (48, 1536, 16)
    assert shapes["xl"][:2] == (60, 3072)
    for config in VARIANTS.values():
        assert (config.vocab_size, config.n_positions, config.head_dim % 8) == (513, 1024, 0)


def test_hub_ids() -> None:
    assert {name: hub_id(name) for name in HUB_IDS} == HUB_IDS
    with pytest.raises(CheckpointError, match=r"variant xl: OpenAI never released its weights - use --random-weights"):
        hub_id("xl")
    with pytest.raises(OptionError, match=r"unknown variant 'tiny' - choose one of small, medium, large, xl"):
        hub_id("tiny")


def test_score_head_reads_the_last_hidden_state() -> None:
    config = ImageGPTConfig(n_layer=3)
    shape = (2, config.n_embd)
    assert classifier_from_hf({}, config, shape, False, "") == Classifier(("LABEL_0", "LABEL_1"), (3,), "hf")
    names = {"1": "dog", "0": "cat"}
    assert classifier_from_hf({"id2label": names}, config, shape, False, "").labels == ("cat", "dog")


def test_probe_reads_the_layers_it_names() -> None:
    config = ImageGPTConfig()
    for layers in ([0], [24, 3]):
        fields = {"probe_layers": layers, "probe_protocol": "paper", "id2label": {"0": "a"}}
        found = classifier_from_hf(fields, config, (1, len(layers) * config.n_embd), True, "")
        assert found == Classifier(("a",), tuple(layers), "paper", "sigmoid")  # one label is right or not


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"probe_protocol": "hf"}, "probe_layers is null, not a list of integers from 0 to 24"),
        ({"probe_layers": [25], "probe_protocol": "hf"}, "probe_layers is [25], not a list of integers from 0 to 24"),
        ({"probe_layers": [True], "probe_protocol": "hf"}, "probe_layers is [True], not a list"),
        ({"probe_layers": [], "probe_protocol": "hf"}, "probe_layers is [], not a list"),
        ({"probe_layers": [3, 4], "probe_protocol": "hf"}, "[3, 4], whose 1024 features are not the 512 that the weig"),
        ({"probe_layers": [3]}, "probe_protocol is null, none of paper, hf"),
        ({"probe_layers": [3], "probe_protocol": ["hf"]}, "probe_protocol is ['hf'], none of"),
        ({"num_labels": 3}, "num_labels is 3, but the weights have 2 classes"),
        ({"id2label": {"0": "a"}}, "id2label names 1 classes, but the weights have 2; id2label lacks 1"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "id2label names 3 classes"),
        ({"id2label": {"0": "a", "2": "c"}}, "id2label lacks 1"),
        ({"id2label": {"0": "a", "1": 5}}, "id2label does not map each index to a string"),
        ({"id2label": ["a", "b"]}, "id2label does not map each index to a string"),
    ],
)
def test_bad_classifier_fields_are_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        classifier_from_hf(fields, ImageGPTConfig(), (2, 512), True, "some/config.json")
    assert expected in str(caught.value)


def test_architectures() -> None:
    assert architectures_from_hf({"architectures": ["ImageGPTModel"]}) == ("ImageGPTModel",)
    assert architectures_from_hf({"architectures": None}) == architectures_from_hf({}) == ()
