"""Checkpoint in, verified bundle out."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from igpt_export.checkpoint import Checkpoint
from igpt_export.trace import OPSET, trace_graphs
from igpt_export.verify import verify_bundle
from igpt_export.writer import bundle_directory, file_records, write_graph, write_manifest, write_weights
from igpt_runtime import names
from igpt_runtime.manifest import WEIGHTS_FILE, GraphRecord, Manifest
from igpt_runtime.names import TensorSpec
from igpt_runtime.session import import_onnxruntime, is_installed

PRECISION = "fp32"
_TOOLS = ("igpt-onnx", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime")


def export_bundle(
    checkpoint: Checkpoint, output: Path, *, force: bool = False, stage: Callable[[str], None] = lambda name: None
) -> Manifest:
    """Export a checkpoint to the bundle directory `output` and verify it.

    force: replace an existing bundle; stage: called with the name of each stage as it begins.

    Raises:
        OutputError: `output` exists or cannot be written.
        DeviceError: onnxruntime is not installed, or twice.
        VerificationError: the bundle disagrees with torch; nothing is kept.
    """
    import_onnxruntime()  # verification needs it: fail before the work, not after
    with bundle_directory(output, force=force) as directory:
        stage("writing weights")
        write_weights(checkpoint.tensors, directory)
        stage("tracing graphs")
        graphs = trace_graphs(
            checkpoint.config,
            lm_head="lm_head.weight" in checkpoint.tensors,
            classifier=checkpoint.classifier,
            classifier_bias="classifier.bias" in checkpoint.tensors,
            weights=directory / WEIGHTS_FILE,
        )
        for name, graph in graphs.items():
            write_graph(graph, f"{name}.onnx", directory)
        manifest = _manifest(checkpoint, graphs, directory)
        write_manifest(manifest, directory)
        stage("verifying against torch")
        manifest = replace(manifest, verification=verify_bundle(directory, checkpoint))
        write_manifest(manifest, directory)
    return manifest


def _manifest(checkpoint: Checkpoint, graphs: dict[str, ir.Model], directory: Path) -> Manifest:
    config, classifier = checkpoint.config, checkpoint.classifier
    n_labels = 0 if classifier is None else len(classifier.labels)
    prefill_outputs = names.prefill_outputs(config, lm_head=names.DECODE in graphs, n_labels=n_labels)
    records = {names.PREFILL: _record(names.PREFILL, names.prefill_inputs(), prefill_outputs)}
    if names.DECODE in graphs:
        records[names.DECODE] = _record(names.DECODE, names.decode_inputs(config), names.decode_outputs(config))
    return Manifest(
        name=checkpoint.name,
        precision=PRECISION,
        opset=OPSET,
        config=config,
        image_format=checkpoint.image_format,
        classifier=classifier,
        graphs=records,
        files=file_records(directory),
        source={"checkpoint": checkpoint.source, "sha256": checkpoint.sha256},
        tools={name: importlib.metadata.version(name) for name in _TOOLS if is_installed(name)},
        verification={},
    )


def _record(name: str, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> GraphRecord:
    return GraphRecord(f"{name}.onnx", tuple(inputs), tuple(outputs))
