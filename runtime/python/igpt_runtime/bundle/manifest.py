"""The manifest: what a bundle's `manifest.json` says, as a dataclass, read with every field checked."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from igpt_runtime.bundle import fields, graph_io
from igpt_runtime.bundle.config import (
    LARGEST_COLOUR,
    Classifier,
    Examples,
    ImageFormat,
    ImageGPTConfig,
    Likelihood,
    SamplingDefaults,
)
from igpt_runtime.bundle.graph_io import TensorSpec, graph_specs
from igpt_runtime.errors import BundleError

FORMAT_VERSION = 7
SAMPLING_VERSION = 1  # of the rules in runtime/SPEC.md: random numbers, order of the filters, ties
_LONGEST = 300  # characters of a message
_SHA256 = re.compile(r"[0-9a-f]{64}")
PROFILES = ("fused", "portable")
PRECISIONS = ("fp32", "int8", "int4", "fp16")
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
    likelihood: Likelihood | None = None  # of pictures like those it was trained on; None if none were at hand
    examples: Examples | None = None  # pictures to try it with

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


def shortened(error: object) -> str:
    """A message, of which a part may be what stands in the file."""
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _manifest(record: dict[str, Any]) -> Manifest:
    config = fields.config_of(record["config"])
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
    classifier = None if record["classifier"] is None else fields.classifier_of(record["classifier"], config)
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
        source={key: fields.text_of(record["source"][key]) for key in ("checkpoint", "sha256")},
        tools={str(name): str(fields.text_of(version)) for name, version in record["tools"].items()},
        verification={key: fields.number(value) for key, value in record["verification"].items()},
        certificate=fields.certificate_of(record["certificate"]),
        sampling=fields.sampling_of(record.get("sampling")),
        onnxruntime_minimum=fields.release(record["onnxruntime_minimum"]),
        likelihood=fields.likelihood_of(record.get("likelihood"), form.height),
        examples=fields.examples_of(record.get("examples"), record["files"]),
    )


def _file(name: str, record: Any) -> FileRecord:
    size, sha256 = record["size"], record["sha256"]
    if type(size) is not int or not 0 <= size < 2**63:
        raise TypeError(f"files.{name}.size is not a number of bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise TypeError(f"files.{name}.sha256 is not a SHA-256")
    return FileRecord(size, sha256)


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


def _graph(record: dict[str, Any]) -> GraphRecord:
    inputs, outputs = (
        tuple(TensorSpec(spec["name"], spec["dtype"], tuple(spec["shape"])) for spec in record[key])
        for key in ("inputs", "outputs")
    )
    return GraphRecord(str(record["file"]), inputs, outputs)
