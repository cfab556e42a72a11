"""Reads fields of a manifest: each function takes what stands in the JSON, and gives what it has to be.

What is malformed raises KeyError, TypeError, ValueError or OverflowError.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from igpt_runtime.bundle.config import (
    FUNCTIONS,
    PROTOCOLS,
    Classifier,
    Examples,
    ImageGPTConfig,
    Likelihood,
    SamplingDefaults,
)

MAX_TOP_K = 2**53 - 1  # of the recommended sampling: what every language reads from JSON as it is
_RELEASE = re.compile(r"\d{1,4}\.\d{1,4}")
# Of one comparison in a certificate, after the number of its pictures: Loss, Shift of igpt_export.verify.certificate.
_LOSS_FIELDS = ("nats_per_token_fp32", "nats_per_token", "increase", "kl_divergence", "top1_agreement")
_CLASS_FIELDS = ("kl_divergence", "top1_agreement")


def number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def release(value: Any) -> str | None:
    text = text_of(value)
    if text is not None and not _RELEASE.fullmatch(text):
        raise ValueError(f"onnxruntime_minimum is {text!r}, not a release like 1.25")
    return text


def classifier_of(record: Any, config: ImageGPTConfig) -> Classifier:
    classifier = Classifier(
        tuple(map(str, record["labels"])), tuple(record["layers"]), record["protocol"], record["function_to_apply"]
    )
    if classifier.function_to_apply not in FUNCTIONS:
        function = classifier.function_to_apply
        raise ValueError(f"classifier.function_to_apply is {function!r}, not one of {', '.join(FUNCTIONS)}")
    if not classifier.layers or not all(type(i) is int and 0 <= i <= config.n_layer for i in classifier.layers):
        raise ValueError(f"classifier.layers {record['layers']} are not 0 .. {config.n_layer}")
    if classifier.protocol not in PROTOCOLS:
        raise ValueError(f"classifier.protocol is {classifier.protocol!r}, not one of {', '.join(PROTOCOLS)}")
    return classifier


def sampling_of(record: Any) -> SamplingDefaults:
    """The recommended sampling; the plain distribution if there is none, as in older bundles."""
    if record is None:
        return SamplingDefaults()
    temperature, top_k, top_p = record["temperature"], record["top_k"], record["top_p"]
    if type(temperature) not in (int, float) or type(top_p) not in (int, float):
        raise TypeError(f"sampling has temperature {temperature!r} and top_p {top_p!r}, which are not two numbers")
    if type(top_k) is not int or top_k > MAX_TOP_K:
        raise TypeError(f"sampling.top_k is {top_k!r}, not a whole number up to {MAX_TOP_K}")
    sampling = SamplingDefaults(float(temperature), top_k, float(top_p))
    if problem := sampling.problem():
        raise ValueError(f"sampling: {problem}")
    return sampling


def likelihood_of(record: Any, height: int) -> Likelihood | None:
    if record is None:
        return None
    rows = [[number(value) for value in row] for row in record["by_rows"]]
    if len(rows) != height or any(len(row) != 3 or not 0 <= row[0] <= row[1] <= row[2] for row in rows):
        raise ValueError(f"likelihood.by_rows has not three rising numbers for each of {height} rows")
    return Likelihood(str(text_of(record["pictures"])), tuple((low, median, high) for low, median, high in rows))


def examples_of(record: Any, files: Mapping[str, Any]) -> Examples | None:
    """files: what the manifest describes."""
    if record is None:
        return None
    examples = Examples(str(text_of(record["file"])), tuple(str(text_of(name)) for name in record["names"]))
    if examples.file not in files:
        raise ValueError(f"examples.file is {examples.file!r}, which is not among the files")
    if not examples.names:
        raise ValueError("examples.names is empty")
    return examples


def certificate_of(record: Any) -> Mapping[str, Any] | None:
    """The precision certificate, with every figure a runtime shows. Raises as a malformed field does."""
    if record is None:
        return None
    losses = {
        graph: None if record[graph] is None else _by_part(record[graph], _loss) for graph in ("prefill", "decode")
    }
    return {
        "pictures": str(record["pictures"]),
        **losses,
        "features": _by_part(record["features"], _shift),
        "largest_activation": [number(value) for value in record["largest_activation"]],
    }


def _by_part(record: Any, figures: Callable[[Any], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {part: figures(record[part]) for part in ("calibration", "held_out")}


def _loss(record: Any) -> dict[str, Any]:
    return {"pictures": int(record["pictures"]), **{name: number(record[name]) for name in _LOSS_FIELDS}}


def _shift(record: Any) -> dict[str, Any]:
    classes = {name: None if record[name] is None else number(record[name]) for name in _CLASS_FIELDS}
    return {"pictures": int(record["pictures"]), "features_error": number(record["features_error"]), **classes}


def config_of(record: dict[str, Any]) -> ImageGPTConfig:
    for field in dataclasses.fields(ImageGPTConfig):
        value = record[field.name]
        allowed: Any = int | float if field.type is float else field.type
        if not isinstance(value, allowed) or (isinstance(value, bool) and field.type is not bool):
            raise TypeError(f"config.{field.name} is {value!r}")
        if isinstance(value, int | float) and field.type is not bool and not value > 0:
            raise ValueError(f"config.{field.name} is {value}")
    return ImageGPTConfig(**record)


def text_of(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
