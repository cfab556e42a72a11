"""The manifest: what a bundle's `manifest.json` says, as a dataclass, read with every field checked."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import (
    FUNCTIONS,
    LARGEST_COLOUR,
    PROTOCOLS,
    Classifier,
    ImageFormat,
    ImageGPTConfig,
    SamplingDefaults,
)
from igpt_runtime.bundle.graph_io import TensorSpec, graph_specs
from igpt_runtime.errors import BundleError

FORMAT_VERSION = 7
SAMPLING_VERSION = 1  # of the rules in runtime/SPEC.md: random numbers, order of the filters, ties
_LONGEST = 300  # characters of a message
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RELEASE = re.compile(r"\d{1,4}\.\d{1,4}")
# Of one comparison in a certificate, after the number of its pictures: Loss, Shift of igpt_export.verify.certificate.
_LOSS_FIELDS = ("nats_per_token_fp32", "nats_per_token", "increase", "kl_divergence", "top1_agreement")
_CLASS_FIELDS = ("kl_divergence", "top1_agreement")
PROFILES = ("fused", "portable")
PRECISIONS = ("fp32", "int8", "int4", "fp16")
MAX_TOP_K = 2**53 - 1  # of the recommended sampling: what every language reads from JSON as it is
CACHE_DTYPES = {"fp32": "float32", "int8": "int8", "fp16": "float16"}


@dataclass(frozen=True)
class GraphRecord:
    """One graph of the bundle."""

    file: str  # name of its .onnx file
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must be."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True, eq=False)
class Manifest:
    """What `manifest.json` says, except for the versions, which are checked when it is read.

    `sos` is `config.sos`. The reference of the manifest describes each field.
    """

    name: str  # of the checkpoint
    precision: str  # fp32, int8 or int4 of the blocks' matrices; fp16 of all weights and activations
    kv_cache: str  # precision of the cache: fp32, int8; fp16 if `precision` is
    profile: str  # fused: graphs of ONNX Runtime's operators, each with a portable body; portable: of standard ones
    opset: int  # of the graphs
    config: ImageGPTConfig  # the model's shape and arithmetic
    image_format: ImageFormat  # how pictures become tokens
    classifier: Classifier | None  # None if the model has none
    graphs: Mapping[str, GraphRecord]  # by name: `file`, `inputs`, `outputs`
    files: Mapping[str, FileRecord]  # by name: `size`, `sha256`; all files but the manifest and the model card
    source: Mapping[str, str | None]  # checkpoint and its sha256
    tools: Mapping[str, str]  # versions that made the bundle
    verification: Mapping[str, float]  # the exporter's comparison with torch
    certificate: Mapping[str, Any] | None = None  # what the precision costs; None if weights and cache are fp32
    sampling: SamplingDefaults = SamplingDefaults()  # recommended sampling
    # The oldest release of ONNX Runtime that computes the graphs right, like "1.25"; None if it was not measured.
    onnxruntime_minimum: str | None = None

    @property
    def cache_dtype(self) -> str:
        """NumPy's name of the cache's type."""
        return CACHE_DTYPES[self.kv_cache]


def manifest_to_json(manifest: Manifest) -> str:
    """The text of `manifest.json`. Raises ValueError for NaN or infinity, which JSON has not."""
    record = dataclasses.asdict(manifest)
    # float32 values print shortest as float32: float(str(x)) reads back as the same float32.
    record["image_format"]["clusters"] = [[float(str(c)) for c in row] for row in manifest.image_format.clusters]
    versions = {"format_version": FORMAT_VERSION, "sampling_version": SAMPLING_VERSION, "sos": manifest.config.sos}
    return json.dumps({**versions, **record}, indent=1, allow_nan=False) + "\n"


def manifest_from_json(text: str, where: str) -> Manifest:
    """Parse `manifest.json`.

    Raises:
        BundleError: it is not JSON, is of another format version, or lacks a field; `where` is the path it names.
    """
    try:
        record = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not valid JSON ({shortened(error)}); export the bundle again") from error
    if not isinstance(record, dict):
        raise BundleError(f"{where} is not a JSON object; export the bundle again")
    for key, known in (("format_version", FORMAT_VERSION), ("sampling_version", SAMPLING_VERSION)):
        version = record.get(key)
        if version != known:
            raise BundleError(
                f"{where} has {key} {shortened(repr(version))}, this igpt-run reads {known}; "
                "install the matching igpt-onnx or export the bundle again"
            )
    try:
        return _manifest(record)
    except KeyError as error:
        raise BundleError(f"{where} lacks the field {shortened(error)}; export the bundle again") from error
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise BundleError(f"{where} has a malformed field ({shortened(error)}); export the bundle again") from error


def _finite(text: str) -> float:
    """A number of the file, which has to be one: NaN and infinity are not JSON, and 1e999 is none either."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a number")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def shortened(error: object) -> str:
    """A message, of which a part may be what stands in the file."""
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _manifest(record: dict[str, Any]) -> Manifest:
    config = _config(record["config"])
    # Names of as many outputs are made of it.
    if config.n_layer >= len(record["graphs"][graph_io.PREFILL]["outputs"]):
        raise ValueError(f"config.n_layer is {config.n_layer}, more than graphs.{graph_io.PREFILL} has outputs for")
    image = record["image_format"]
    colours = np.asarray(image["clusters"], np.float64)
    if not (np.abs(colours) <= LARGEST_COLOUR).all():
        raise ValueError("image_format.clusters holds a number that is not in [-1, 1]")
    clusters = colours.astype(np.float32)
    if clusters.shape != (config.n_clusters, 3):
        raise ValueError(f"image_format.clusters has shape {clusters.shape}, expected ({config.n_clusters}, 3)")
    if image["height"] < 1 or image["height"] * image["width"] != config.n_positions:
        raise ValueError(f"image_format {image['height']}x{image['width']} is not config.n_positions")
    classifier = None if record["classifier"] is None else _classifier(record["classifier"], config)
    graphs = {name: _graph(graph) for name, graph in record["graphs"].items()}
    kv_cache = record["kv_cache"]
    if kv_cache not in CACHE_DTYPES:
        raise ValueError(f"kv_cache is {kv_cache!r}, not one of {', '.join(CACHE_DTYPES)}")
    form = ImageFormat(int(image["height"]), int(image["width"]), clusters, int(image["resample"]))
    _check_graphs(graphs, config, form, classifier, CACHE_DTYPES[kv_cache])
    if record["profile"] not in PROFILES:
        raise ValueError(f"profile is {record['profile']!r}, not one of {', '.join(PROFILES)}")
    if record["precision"] not in PRECISIONS:
        raise ValueError(f"precision is {record['precision']!r}, not one of {', '.join(PRECISIONS)}")
    if (record["precision"] == "fp16") != (kv_cache == "fp16"):
        raise ValueError(f"precision {record['precision']} with kv_cache {kv_cache}: fp16 is that of both")
    if kv_cache == "fp16" and graph_io.DECODE_SHARED in graphs:
        raise ValueError(f"graphs.{graph_io.DECODE_SHARED} is not a graph of fp16")
    return Manifest(
        name=str(record["name"]),
        precision=str(record["precision"]),
        kv_cache=str(kv_cache),
        profile=str(record["profile"]),
        opset=int(record["opset"]),
        config=config,
        image_format=form,
        classifier=classifier,
        graphs=graphs,
        files={name: _file(name, file) for name, file in record["files"].items()},
        source={key: _text(record["source"][key]) for key in ("checkpoint", "sha256")},
        tools={str(name): str(_text(version)) for name, version in record["tools"].items()},
        verification={key: _number(value) for key, value in record["verification"].items()},
        certificate=_certificate(record["certificate"]),
        sampling=_sampling(record.get("sampling")),
        onnxruntime_minimum=_release(record["onnxruntime_minimum"]),
    )


def _file(name: str, record: Any) -> FileRecord:
    size, sha256 = record["size"], record["sha256"]
    if type(size) is not int or not 0 <= size < 2**63:
        raise TypeError(f"files.{name}.size is not a number of bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise TypeError(f"files.{name}.sha256 is not a SHA-256")
    return FileRecord(size, sha256)


def _release(value: Any) -> str | None:
    text = _text(value)
    if text is not None and not _RELEASE.fullmatch(text):
        raise ValueError(f"onnxruntime_minimum is {text!r}, not a release like 1.25")
    return text


def _classifier(record: Any, config: ImageGPTConfig) -> Classifier:
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


def _sampling(record: Any) -> SamplingDefaults:
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


def _certificate(record: Any) -> Mapping[str, Any] | None:
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
        "largest_activation": [_number(value) for value in record["largest_activation"]],
    }


def _by_part(record: Any, figures: Callable[[Any], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {part: figures(record[part]) for part in ("calibration", "held_out")}


def _loss(record: Any) -> dict[str, Any]:
    return {"pictures": int(record["pictures"]), **{name: _number(record[name]) for name in _LOSS_FIELDS}}


def _shift(record: Any) -> dict[str, Any]:
    classes = {name: None if record[name] is None else _number(record[name]) for name in _CLASS_FIELDS}
    return {"pictures": int(record["pictures"]), "features_error": _number(record["features_error"]), **classes}


def _check_graphs(
    graphs: Mapping[str, GraphRecord], config: ImageGPTConfig, form: ImageFormat, classifier: Classifier | None,
    cache_dtype: str,
) -> None:  # fmt: skip
    """Compare the graphs' inputs and outputs with those of a model of this configuration."""
    lm_head = any(spec.name == graph_io.LOGITS for spec in graphs[graph_io.PREFILL].outputs)
    expected = graph_specs(config, form, lm_head=lm_head, classifier=classifier, cache_dtype=cache_dtype)
    for name, graph in graphs.items():
        if name in expected and (list(graph.inputs), list(graph.outputs)) != expected[name]:
            raise ValueError(f"graphs.{name} is not the graph of this config and classifier")


def _config(record: dict[str, Any]) -> ImageGPTConfig:
    for field in dataclasses.fields(ImageGPTConfig):
        value = record[field.name]
        allowed: Any = int | float if field.type is float else field.type
        if not isinstance(value, allowed) or (isinstance(value, bool) and field.type is not bool):
            raise TypeError(f"config.{field.name} is {value!r}")
        if isinstance(value, int | float) and field.type is not bool and not value > 0:
            raise ValueError(f"config.{field.name} is {value}")
    return ImageGPTConfig(**record)


def _graph(record: dict[str, Any]) -> GraphRecord:
    inputs, outputs = (
        tuple(TensorSpec(spec["name"], spec["dtype"], tuple(spec["shape"])) for spec in record[key])
        for key in ("inputs", "outputs")
    )
    return GraphRecord(str(record["file"]), inputs, outputs)


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
