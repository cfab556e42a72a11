"""Which graphs run where: every graph of the golden pack, in both profiles, in every engine."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
for directory in (HERE, HERE.parent, HERE.parent / "cuda", HERE.parent / "golden"):
    sys.path.insert(0, str(directory))

import engines  # noqa: E402
import replay  # noqa: E402

from igpt_runtime.bundle import graph_io  # noqa: E402
from igpt_runtime.bundle.directory import MANIFEST_FILE  # noqa: E402
from igpt_runtime.bundle.manifest import PROFILES, Manifest, manifest_from_json  # noqa: E402

PRECISIONS = ("fp32", "int8")  # of weights and of the cache
FUSED, PORTABLE = PROFILES
GRAPHS = (
    graph_io.PREFILL, graph_io.DECODE, graph_io.DECODE_SHARED, graph_io.PREPROCESS, graph_io.POSTPROCESS,
    graph_io.FEATURES, graph_io.CLASSIFY, graph_io.SCORE, graph_io.COMPLETE,
)  # fmt: skip

Bundles = Mapping[tuple[str, str], Path]  # by precision and profile
# By graph and profile: the differences of its outputs, or why there are none.
Outcomes = dict[str, dict[str, dict[str, float] | str]]


def export(directory: Path, checkpoint: Path, precision: str, profile: str, name: str) -> Path:
    """Export a checkpoint with every graph; returns the bundle."""
    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.export import ExportOptions, export_bundle
    from igpt_export.precision.precision import Precision

    bundle = directory / f"{name}-{precision}-{profile}"
    if not bundle.exists():
        # Random weights feel rounding more than trained ones do: no limit to the loss.
        limit = None if precision == "fp32" else float("inf")
        export_bundle(
            load_checkpoint(checkpoint),
            bundle,
            ExportOptions(Precision(precision, precision), embed=True, profile=profile, max_loss_increase=limit),
        )
    return bundle


def golden_bundles(directory: Path) -> Bundles:
    """The model of the golden pack in all precisions and profiles."""
    import make

    checkpoint = make.make_checkpoint(directory / "checkpoint")
    made = {
        (p, profile): export(directory, checkpoint, p, profile, "golden") for p in PRECISIONS for profile in PROFILES
    }
    made["fp16", FUSED] = export(directory, checkpoint, "fp16", FUSED, "golden")
    return made


def outcomes(opened: Callable[[], Any], bundles: Bundles, precision: str) -> Outcomes:
    """What an engine makes of the graphs: in fp32 against the golden pack, in int8 against ONNX Runtime in Python.

    opened: of `engines`, what makes a context manager of an `Open`.
    """
    manifest = manifest_of(bundles[precision, FUSED])
    with engines.onnxruntime_python() as reference:
        fused = bundles[precision, FUSED]
        prefix = replay.prefix_of(manifest, reference(fused, graph_io.PREFILL))
        wanted = replay.expected()
        if precision != "fp32":
            run = replay.replay(manifest, lambda graph: reference(fused, graph), prefix)
            wanted = {graph: {output: run[graph][output] for output in outputs} for graph, outputs in wanted.items()}  # type: ignore[index]
    found: Outcomes = {graph: {} for graph in GRAPHS}
    for profile in PROFILES:
        bundle = bundles[precision, profile]
        with opened() as open_graph:
            results = replay.replay(manifest, lambda graph, o=open_graph, b=bundle: o(b, graph), prefix)  # type: ignore[misc]
        for graph, outcome in replay.differences(results, wanted).items():
            found[graph][profile] = outcome
    return found


def cuda_kernels(bundle: Path) -> dict[str, dict[str, int]]:
    """By graph: how many nodes the CUDA provider has kernels for, and how many stay on the CPU. Nothing is computed."""
    import stand_in

    stand_in.prepare()
    manifest = manifest_of(bundle)
    paths = {graph: bundle / f"{graph}.onnx" for graph in GRAPHS if graph in manifest.graphs}
    done = stand_in.run([HERE.parent / "cuda" / "placement.py", "0", *paths.values()])
    if done.returncode:
        raise RuntimeError(done.stderr)
    placed = json.loads(done.stdout)
    providers = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
    return {
        graph: {short: len(placed[str(path)].get(provider, [])) for short, provider in providers.items()}
        for graph, path in paths.items()
    }


def manifest_of(bundle: Path) -> Manifest:
    """A bundle's manifest."""
    return manifest_from_json((bundle / MANIFEST_FILE).read_text(), str(bundle))
