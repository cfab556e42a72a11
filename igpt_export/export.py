"""Checkpoint in, verified bundle out."""

import importlib.metadata
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from igpt_export.bundle_directory import bundle_directory
from igpt_export.bundle_writer import (
    check_single_file,
    file_records,
    link_weights,
    refers_to_weights,
    take_weights_in,
    write_card,
    write_graph,
    write_manifest,
    write_weights,
)
from igpt_export.card.card import model_card
from igpt_export.card.onnxruntime_minimum import minimum
from igpt_export.checkpoint.checkpoint import Checkpoint
from igpt_export.checkpoint.tensors import ShapedTensors
from igpt_export.examples import write_examples
from igpt_export.graphs.bundle_graphs import trace_graphs
from igpt_export.graphs.metadata import graph_metadata
from igpt_export.graphs.trace import OPSET
from igpt_export.model.model import Parts
from igpt_export.model.portable import inlined
from igpt_export.precision.calibration import Observation, Outputs, Pictures, load_pictures, observe
from igpt_export.precision.overflow import check_activations
from igpt_export.precision.picture_source import picture_source
from igpt_export.precision.precision import Precision, check_shape
from igpt_export.precision.quantize import QuantizedTensors, stored_shapes
from igpt_export.verify.bundle import verify_bundle
from igpt_export.verify.certificate import certify, check_loss
from igpt_export.verify.likelihood import measure_likelihood, own_pictures
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.directory import WEIGHTS_FILE
from igpt_runtime.bundle.manifest import GraphRecord, Manifest
from igpt_runtime.engine.session import import_onnxruntime, is_installed
from igpt_runtime.errors import OptionError
from igpt_runtime.progress import SILENT, Progress

_TOOLS = ("igpt-onnx", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime")
MAX_LOSS_INCREASE = 0.04  # nats per token: what the published large model gains over the small one


@dataclass(frozen=True)
class ExportOptions:
    """How a checkpoint is exported."""

    precision: Precision = Precision()
    profile: str = "fused"  # "portable" writes graphs of standard operators only
    embed: bool = False  # also write the graphs that take a picture and need no host code
    single_file: bool = False  # with embed: these graphs hold their weights themselves
    # Directory of pictures that set scales and judge the loss; None: those beside the checkpoint, or embedded digits.
    calibration: Path | None = None
    examples: Path | None = None  # directory of pictures that the bundle brings along to be tried with
    max_loss_increase: float | None = None  # nats per token that a precision may cost; None: MAX_LOSS_INCREASE
    link: bool = False  # have the checkpoint's own file as the bundle's weights, in fp32
    force: bool = False  # replace an existing bundle


def export_bundle(
    checkpoint: Checkpoint, output: Path, options: ExportOptions | None = None, progress: Progress = SILENT
) -> Manifest:
    """Export a checkpoint to the bundle directory `output`, verify it and, below fp32, certify it.

    options: ExportOptions() if None.

    Raises:
        OptionError: the precision does not fit the model, there are no calibration pictures, or nothing to link to.
        OutputError: `output` exists or cannot be written.
        DeviceError: onnxruntime is not installed, or twice.
        VerificationError: the bundle disagrees with torch, loses more than it may, or overflows float16; nothing is
            kept.
    """
    import_onnxruntime()  # verification needs it: fail before the work, not after
    options = options or ExportOptions()
    precision = options.precision
    check_shape(checkpoint.config, precision, options.profile)
    if options.link and (checkpoint.file is None or not precision.is_exact):
        what = checkpoint.name if precision.is_exact else f"precision {precision}"
        raise OptionError(f"--link needs fp32 and one float32 model.safetensors, {what} is not that; leave it out")
    limit = _loss_limit(checkpoint, options)
    source = picture_source(checkpoint, options.calibration)
    pictures = None if precision.is_exact else load_pictures(checkpoint, source)
    own = own_pictures(checkpoint, source)
    if options.single_file:
        check_single_file(stored_shapes(checkpoint.tensors, checkpoint.config, precision), checkpoint.name)
    with bundle_directory(output, force=options.force) as directory:
        examples = None
        if options.examples is not None:
            examples = write_examples(options.examples, checkpoint.image_format, directory)
        seen = None if pictures is None else _observe(checkpoint, pictures, precision, progress)
        tensors = QuantizedTensors(checkpoint.tensors, checkpoint.config, precision, seen and seen[0])
        manifest = write_bundle(directory, checkpoint, tensors, options, progress)
        likelihood = None if own is None else measure_likelihood(directory, own, source.kind, progress)
        manifest = replace(manifest, examples=examples, likelihood=likelihood)
        if pictures is not None and seen is not None:
            progress.stage("measuring the loss")
            certificate = certify(directory, pictures, *seen, progress)
            check_loss(certificate, limit)
            manifest = replace(manifest, certificate=certificate.record())
        write_manifest(manifest, directory)
        write_card(model_card(manifest, checkpoint.about), directory)
    return manifest


def write_bundle(
    directory: Path, checkpoint: Checkpoint, tensors: ShapedTensors, options: ExportOptions, progress: Progress
) -> Manifest:
    """Write weights, graphs and manifest into an empty directory, and verify them.

    checkpoint: what the bundle is of; tensors: those of its weights file.

    Raises:
        VerificationError: the graphs disagree with torch.
    """
    progress.stage("writing weights")
    stored_names: Mapping[str, str] = {}
    if options.link and checkpoint.file is not None and checkpoint.sha256 is not None:
        weights = link_weights(checkpoint.file.path, checkpoint.sha256, directory)
        stored_names = checkpoint.file.stored_names
    else:
        weights = write_weights(tensors, directory, progress)
    progress.stage("tracing graphs")
    graphs = trace_graphs(
        checkpoint, Parts.of(tensors), options.precision, directory / WEIGHTS_FILE, embed=options.embed,
        stored_names=stored_names,
    )  # fmt: skip
    if options.profile == "portable":
        graphs = {name: inlined(graph) for name, graph in graphs.items()}
    manifest = _manifest(checkpoint, options, graphs)
    for name, graph in graphs.items():
        if options.single_file and name in graph_io.EMBEDDED:
            take_weights_in(graph)
        refers = weights.sha256 if refers_to_weights(graph) else None
        graph.metadata_props.update(graph_metadata(manifest, name, checkpoint.about.license, refers))
        write_graph(graph, f"{name}.onnx", directory)
    manifest = replace(manifest, files=file_records(directory, {WEIGHTS_FILE: weights}))
    write_manifest(manifest, directory)
    progress.stage("verifying against torch")
    report = verify_bundle(directory, tensors, checkpoint, options.precision, progress)
    manifest = replace(manifest, verification=report)
    write_manifest(manifest, directory)
    return manifest


def _observe(
    checkpoint: Checkpoint, pictures: Pictures, precision: Precision, progress: Progress
) -> tuple[Observation, Outputs]:
    """What the float model computes of the pictures; for fp16, after a look at whether that fits."""
    progress.stage("calibrating")
    observation, outputs = observe(checkpoint, pictures, progress)
    if precision.is_half:
        check_activations(observation, outputs)
    return observation, outputs


def _loss_limit(checkpoint: Checkpoint, options: ExportOptions) -> float:
    """The loss to allow. Raises OptionError for options that would be ignored, or are no number."""
    asked = options.max_loss_increase
    if options.precision.is_exact and asked is not None:
        raise OptionError("fp32 loses nothing; give --precision int8, int4 or fp16, or --kv-cache int8")
    classifier = checkpoint.classifier
    predicts_classes = classifier is not None and classifier.function_to_apply != "none"
    if options.precision.is_exact and options.calibration is not None and "lm_head.weight" not in checkpoint.tensors:
        raise OptionError(f"{checkpoint.name} predicts no tokens, so fp32 needs no pictures; leave --calibration out")
    if asked is not None and "lm_head.weight" not in checkpoint.tensors and not predicts_classes:
        raise OptionError(
            f"{checkpoint.name} predicts neither tokens nor classes, so its loss is not known; "
            "leave --max-loss-increase out"
        )
    if asked is not None and math.isnan(asked):
        raise OptionError("--max-loss-increase must be a number of nats per token, got nan")
    return MAX_LOSS_INCREASE if asked is None else asked


def _manifest(checkpoint: Checkpoint, options: ExportOptions, graphs: dict[str, ir.Model]) -> Manifest:
    """The manifest of these graphs, as long as nothing is written and verified."""
    classifier, precision = checkpoint.classifier, options.precision
    specs = graph_io.graph_specs(
        checkpoint.config,
        checkpoint.image_format,
        lm_head=graph_io.DECODE in graphs,
        classifier=classifier,
        cache_dtype=precision.cache_dtype,
    )
    return Manifest(
        name=checkpoint.name,
        precision=precision.weights,
        kv_cache=precision.kv_cache,
        profile=options.profile,
        opset=OPSET,
        config=checkpoint.config,
        image_format=checkpoint.image_format,
        classifier=classifier,
        graphs={name: GraphRecord(f"{name}.onnx", *map(tuple, specs[name])) for name in graphs},
        files={},
        source={"checkpoint": checkpoint.source, "sha256": checkpoint.sha256},
        tools={name: importlib.metadata.version(name) for name in _TOOLS if is_installed(name)},
        verification={},
        sampling=checkpoint.sampling,
        onnxruntime_minimum=minimum(options.profile, precision.weights, precision.kv_cache).release,
    )
