"""Makes a probe the classifier of a bundle."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from igpt_export.bundle_directory import bundle_directory
from igpt_export.bundle_writer import refers_to_weights, write_card, write_manifest
from igpt_export.card.card import model_card
from igpt_export.checkpoint.about import About, read_license
from igpt_export.checkpoint.checkpoint import Checkpoint
from igpt_export.checkpoint.tensors import ShapedTensors, unwrapped
from igpt_export.checkpoint.weights import STORED_DTYPES, open_safetensors
from igpt_export.export import ExportOptions, write_bundle
from igpt_export.precision.precision import Precision
from igpt_export.probe.fit import Probe, check_origin
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.bundle import Bundle
from igpt_runtime.bundle.config import Classifier
from igpt_runtime.bundle.directory import WEIGHTS_FILE
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.session import import_onnxruntime
from igpt_runtime.progress import SILENT, Progress

_HEAD = "classifier."
_LEFT_OUT = re.compile(r"^(classifier|score|probe)\.|\.attn\.(bias|masked_bias)$")


def bake_probe(
    bundle: Bundle, probe: Probe, output: Path, *, force: bool = False, progress: Progress = SILENT
) -> Manifest:
    """Write the bundle anew, with the probe as its classifier; weights and precision are as before.

    A classifier that it had is left out. force: replace an existing bundle.

    Raises:
        OptionError: the probe is of another model.
        OutputError: `output` exists or cannot be written.
        BundleError: a file of the bundle is damaged.
        VerificationError: the new bundle disagrees with torch; nothing is kept.
    """
    import_onnxruntime()
    check_origin(probe, bundle)
    manifest = bundle.manifest
    classifier = Classifier(probe.label_names, probe.layers, probe.protocol)
    precision = Precision(manifest.precision, manifest.kv_cache)
    tensors = _WithHead(bundle.check_file(WEIGHTS_FILE), probe, precision)
    checkpoint = Checkpoint(
        name=manifest.name,
        config=manifest.config,
        image_format=manifest.image_format,
        tensors=tensors,
        classifier=classifier,
        source=manifest.source["checkpoint"] or manifest.name,
        sha256=manifest.source["sha256"],
        sampling=manifest.sampling,
        about=About(read_license(bundle.path)),
    )
    with bundle_directory(output, force=force) as directory:
        embedded = manifest.graphs.get(graph_io.FEATURES)
        single = embedded is not None and not refers_to_weights(ir.load(bundle.check_file(embedded.file)))
        options = ExportOptions(precision, manifest.profile, embed=embedded is not None, single_file=single)
        if manifest.examples is not None:
            shutil.copyfile(bundle.check_file(manifest.examples.file), directory / manifest.examples.file)
        made = write_bundle(directory, checkpoint, tensors, options, progress)
        # What the precision costs was measured without these classes.
        certificate = _without_classes(manifest.certificate)
        made = replace(made, certificate=certificate, likelihood=manifest.likelihood, examples=manifest.examples)
        write_manifest(made, directory)
        write_card(model_card(made, checkpoint.about), directory)
    return made


class _WithHead(ShapedTensors):
    """The tensors of a bundle's weights file, memory-mapped, and a probe as their classifier."""

    def __init__(self, path: Path, probe: Probe, precision: Precision) -> None:
        dtype = torch.float16 if precision.is_half else torch.float32
        arrays = {"weight": probe.linear.weight, "bias": probe.linear.bias}
        self._head = {_HEAD + part: torch.from_numpy(array).to(dtype) for part, array in arrays.items()}
        # A linked file has its checkpoint's names, and may have other heads and old causal masks.
        found = unwrapped(open_safetensors(path), str(path))
        stored = {name.removeprefix("transformer."): tensor for name, tensor in found.items()}
        self._stored = {name: tensor for name, tensor in stored.items() if not _LEFT_OUT.search(name)}
        shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in self._head.items()}
        super().__init__(
            {name: (STORED_DTYPES[tensor.dtype], tensor.shape) for name, tensor in self._stored.items()} | shapes
        )

    def __getitem__(self, name: str) -> Tensor:
        if name in self._head:
            return self._head[name]
        return self._stored[name].read()


def _without_classes(certificate: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if certificate is None:
        return None
    unknown = {"kl_divergence": None, "top1_agreement": None}
    return {**certificate, "features": {part: {**shift, **unknown} for part, shift in certificate["features"].items()}}
