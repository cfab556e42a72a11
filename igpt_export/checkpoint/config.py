"""The published model sizes, and a checkpoint's `config.json` made into an `ImageGPTConfig`.

Every field of transformers' `configuration_imagegpt.py`, and every field of its base class that could matter, is in one
table below: read, refused unless it has a value that leaves the arithmetic alone, or ignored because the arithmetic
does not depend on it. transformers computes with no other key, so those are ignored too (other programs leave notes in
these files), except keys whose names say that they shape a GPT (`n_layers`, `rope_theta`, `hidden_act` ...): their
authors meant models that neither transformers nor this project would compute, so they are refused by name.
"""

from collections.abc import Mapping
from typing import Any

from igpt_export.checkpoint.problems import listed, one_line, refuse
from igpt_runtime.bundle.config import PROTOCOLS, Classifier, ImageGPTConfig
from igpt_runtime.errors import OptionError

# From "Generative Pretraining from Pixels" and image-gpt's README. Neither gives the number of heads of XL, which was
# never released: 16, that of L, is assumed.
VARIANTS: dict[str, ImageGPTConfig] = {
    "small": ImageGPTConfig(n_layer=24, n_embd=512, n_head=8),
    "medium": ImageGPTConfig(n_layer=36, n_embd=1024, n_head=8),
    "large": ImageGPTConfig(n_layer=48, n_embd=1536, n_head=16),
    "xl": ImageGPTConfig(n_layer=60, n_embd=3072, n_head=16),
}

# Where the released variants are on the Hugging Face Hub.
HUB_IDS: dict[str, str] = {
    "small": "openai/imagegpt-small",
    "medium": "openai/imagegpt-medium",
    "large": "openai/imagegpt-large",
}

ACTIVATION_NAMES = ("quick_gelu", "gelu_new", "gelu", "relu")  # the keys of igpt_export.model.model.ACTIVATIONS

_ALIASES = {  # transformers' attribute_map: the other names of four fields
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}

_INTEGERS = {  # field: (least, greatest); the greatest keep a damaged file from asking for absurd amounts of memory
    "vocab_size": (2, 1 << 20),
    "n_positions": (1, 1 << 20),
    "n_embd": (1, 1 << 16),
    "n_layer": (1, 1 << 12),
    "n_head": (1, 1 << 16),
    "n_inner": (1, 1 << 20),
}
_GREATEST_EPSILON = 1e3  # beyond it nothing is normalised
_BOOLEANS = ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn")
_READ = {*_INTEGERS, *_BOOLEANS, "activation_function", "layer_norm_epsilon"}

_HARMLESS: dict[str, tuple[object, ...]] = {  # field: the values that leave the arithmetic alone; any other is refused
    "add_cross_attention": (False,),
    "tie_word_embeddings": (False,),  # lm_head has one row fewer than wte
    "is_encoder_decoder": (False,),
    "is_causal": (True, None),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({}, None),
    "per_layer_config": ({}, None),
    "layer_types": (None,),
    "sliding_window": (None,),
    "quantization_config": (None,),
}

_IGNORED = {
    # training
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range", "gradient_checkpointing"),
    # what the library returns and how it runs, not what it computes (with is_decoder or without, the mask is causal)
    *("use_cache", "is_decoder", "chunk_size_feed_forward", "attn_implementation", "num_return_sequences", "num_beams"),
    *("num_beam_groups",),
    # token ids used in generation by transformers; here sos is always the last id
    *("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id"),
    # GPT-2's old names: a copy of n_positions
    *("n_ctx",),
    # classification and probes: read by `classifier_from_hf`
    *("num_labels", "id2label", "label2id", "probe_layers", "probe_protocol", "problem_type"),
}

# What transformers' pipeline makes of a head's outputs, by `problem_type`.
_FUNCTIONS = {
    "regression": "none", "multi_label_classification": "sigmoid", "single_label_classification": "softmax",
}  # fmt: skip

# An unknown key that begins like this means to shape the model.
_SHAPING = (
    *("n_", "num_", "hidden_", "intermediate_", "activation", "layer_norm", "rms_norm", "norm_", "scale_", "reorder_"),
    *("attn_", "attention_", "rope", "rotary", "position", "max_position", "add_", "head_dim", "mlp_"),
)


def hub_id(variant: str) -> str:
    """The Hub id of a released variant.

    Raises CheckpointError for xl, whose weights were never released, and OptionError for an unknown name.
    """
    config_of(variant)
    if variant not in HUB_IDS:
        remedy = f"use --random-weights for its size, or one of {', '.join(HUB_IDS)}"
        refuse(f"variant {variant}", ["OpenAI never released its weights"], remedy)
    return HUB_IDS[variant]


def config_of(variant: str) -> ImageGPTConfig:
    """The configuration of a variant; OptionError for an unknown name."""
    if variant not in VARIANTS:
        raise OptionError(f"unknown variant {one_line(variant)!r} - choose one of {', '.join(VARIANTS)}")
    return VARIANTS[variant]


def config_from_hf(raw: Mapping[str, Any], where: str) -> ImageGPTConfig:
    """A checkpoint's `config.json` as an ImageGPTConfig; missing fields take transformers' defaults.

    raw: the parsed file; where: its path, for the message. Raises one CheckpointError that lists every problem.
    """
    problems: list[str] = []
    if raw.get("model_type") != "imagegpt":
        problems.append(f"model_type is {_shown(raw.get('model_type'))}, not 'imagegpt'")
    fields = _canonical(raw, problems)
    config = ImageGPTConfig(
        vocab_size=_integer(fields, "vocab_size", problems),
        n_positions=_integer(fields, "n_positions", problems),
        n_embd=_integer(fields, "n_embd", problems),
        n_layer=_integer(fields, "n_layer", problems),
        n_head=_integer(fields, "n_head", problems),
        n_inner=None if fields.get("n_inner") is None else _integer(fields, "n_inner", problems),
        activation_function=_activation(fields, problems),
        layer_norm_epsilon=_epsilon(fields, problems),
        scale_attn_weights=_boolean(fields, "scale_attn_weights", problems),
        scale_attn_by_inverse_layer_idx=_boolean(fields, "scale_attn_by_inverse_layer_idx", problems),
        reorder_and_upcast_attn=_boolean(fields, "reorder_and_upcast_attn", problems),
    )
    has_heads = not any(problem.startswith(("n_embd ", "n_head ")) for problem in problems)
    if has_heads and config.n_embd % config.n_head:
        problems.append(f"n_embd {config.n_embd} is not divisible by n_head {config.n_head}")
    problems += _refused(fields)
    if problems:
        refuse(where, problems, "only the ImageGPT of transformers' configuration_imagegpt.py can be exported")
    return config


def classifier_from_hf(
    raw: Mapping[str, Any], config: ImageGPTConfig, shape: tuple[int, int], probe: bool, where: str
) -> Classifier:
    """What `config.json` says about a head with a weight of `shape` [n_labels, features].

    A `score` head (ImageGPTForImageClassification) reads the last hidden state of all tokens; a `probe`, this project's
    extension, features of the layers in `probe_layers`, one after the other, by the protocol `probe_protocol`. Labels
    are those of `id2label` by index, else LABEL_0, LABEL_1 ... What is applied to the outputs of a `score` head follows
    from `problem_type`. Raises one CheckpointError that lists every problem.
    """
    problems: list[str] = []
    n_labels, n_inputs = shape
    labels = _labels(raw, n_labels, problems)
    layers: Any = raw.get("probe_layers") if probe else [config.n_layer]
    protocol: Any = raw.get("probe_protocol") if probe else "hf"
    if not isinstance(layers, list) or not layers or not all(_is_layer(layer, config) for layer in layers):
        problems.append(f"probe_layers is {_shown(layers)}, not a list of integers from 0 to {config.n_layer}")
    elif len(layers) * config.n_embd != n_inputs:
        problems.append(
            f"probe_layers is {_shown(layers)}, whose {len(layers) * config.n_embd} features are not the {n_inputs} "
            "that the weights are for"
        )
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        problems.append(f"probe_protocol is {_shown(protocol)}, none of {', '.join(PROTOCOLS)}")
    function = _function(None if probe else raw.get("problem_type"), n_labels, problems)
    if problems:
        refuse(where, problems, "correct these fields so that they describe the classifier's weights")
    return Classifier(labels, tuple(layers), protocol, function)


def _function(problem_type: object, n_labels: int, problems: list[str]) -> str:
    """What transformers' `ImageClassificationPipeline` applies to the outputs of a head."""
    if problem_type is not None and not (isinstance(problem_type, str) and problem_type in _FUNCTIONS):
        problems.append(f"problem_type is {_shown(problem_type)}, none of {', '.join(_FUNCTIONS)}")
    if n_labels == 1 and problem_type != "regression":
        return "sigmoid"
    return _FUNCTIONS.get(str(problem_type), "softmax")


def _is_layer(value: object, config: ImageGPTConfig) -> bool:
    return type(value) is int and 0 <= value <= config.n_layer


def architectures_from_hf(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that `config.json` says its weights belong to; empty if it does not say."""
    names = raw.get("architectures")
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _labels(raw: Mapping[str, Any], n_labels: int, problems: list[str]) -> tuple[str, ...]:
    names = raw.get("id2label")
    if names is None:
        count = raw.get("num_labels", n_labels)
        if count != n_labels:
            problems.append(f"num_labels is {_shown(count)}, but the weights have {n_labels} classes")
        return tuple(f"LABEL_{i}" for i in range(n_labels))
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        problems.append("id2label does not map each index to a string")
        return ()
    missing = [str(i) for i in range(n_labels) if str(i) not in names]
    if missing or len(names) != n_labels:
        problems.append(f"id2label names {len(names)} classes, but the weights have {n_labels}")
        if missing:
            problems.append(f"id2label lacks {listed(missing)}")
        return ()
    return tuple(names[str(i)] for i in range(n_labels))


def _canonical(raw: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """`raw` with every alias replaced by the field it stands for."""
    fields = {key: value for key, value in raw.items() if key not in _ALIASES}
    for alias, field in _ALIASES.items():
        if alias in raw and field not in fields:
            fields[field] = raw[alias]
        elif alias in raw and raw[alias] != fields[field]:
            problems.append(f"{field} is {_shown(fields[field])}, but {alias}, its other name, is {_shown(raw[alias])}")
    return fields


def _integer(fields: Mapping[str, Any], key: str, problems: list[str]) -> int:
    least, greatest = _INTEGERS[key]
    default: int = getattr(ImageGPTConfig, key)
    value = fields.get(key, default)
    if type(value) is int and least <= value <= greatest:
        return value
    problems.append(f"{key} is {_shown(value)}, not an integer from {least} to {greatest}")
    return default


def _boolean(fields: Mapping[str, Any], key: str, problems: list[str]) -> bool:
    default: bool = getattr(ImageGPTConfig, key)
    value = fields.get(key, default)
    if type(value) is bool:
        return value
    problems.append(f"{key} is {_shown(value)}, neither true nor false")
    return default


def _activation(fields: Mapping[str, Any], problems: list[str]) -> str:
    default = ImageGPTConfig.activation_function
    value: object = fields.get("activation_function", default)
    if isinstance(value, str) and value in ACTIVATION_NAMES:
        return value
    problems.append(f"activation_function is {_shown(value)}, none of {', '.join(ACTIVATION_NAMES)}")
    return default


def _epsilon(fields: Mapping[str, Any], problems: list[str]) -> float:
    default = ImageGPTConfig.layer_norm_epsilon
    value: object = fields.get("layer_norm_epsilon", default)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _GREATEST_EPSILON:
        return float(value)
    problems.append(f"layer_norm_epsilon is {_shown(value)}, not a number above 0 and at most {_GREATEST_EPSILON:g}")
    return default


def _refused(fields: Mapping[str, Any]) -> list[str]:
    """Problems of the fields that are not read: values that would change the arithmetic, and unknown shaping keys."""
    problems = []
    for key, harmless in _HARMLESS.items():
        if key in fields and not any(fields[key] == value and type(fields[key]) is type(value) for value in harmless):
            problems.append(f"{key} is {_shown(fields[key])}, which is not supported (only {_shown(harmless[0])} is)")
    known = {*_READ, *_HARMLESS, *_IGNORED}
    unknown = sorted(key for key in fields if key not in known and key.startswith(_SHAPING))
    if unknown:
        problems.append(f"fields that ImageGPT does not have: {listed(unknown)}")
    return problems


def _shown(value: object) -> str:
    """`value` as JSON-like text for a message."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return one_line(repr(value))
