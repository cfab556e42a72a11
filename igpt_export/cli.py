"""The `igpt-export` command: parses, calls the library, prints."""

import signal
import sys
from pathlib import Path
from types import FrameType

import click

from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.console import Command, print_result, stages
from igpt_runtime.errors import CheckpointError, DeviceError

DEMO_CHECKPOINT = Path(__file__).resolve().parent.parent / "models" / "demo"


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--variant", type=click.Choice(["small", "medium", "large", "xl", "demo"]), help="A model of the family.")
@click.option(
    "--checkpoint",
    metavar="DIR_OR_HUB_ID",
    help="A checkpoint directory, owner/name on the hub, or the prefix of OpenAI's own (model.ckpt-1000000).",
)
@click.option(
    "--clusters",
    type=click.Path(path_type=Path),
    metavar="NPY",
    help="The colours of OpenAI's own: kmeans_centers.npy.",
)
@click.option("--random-weights", is_flag=True, help="Make up the variant's weights instead of downloading them.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of --random-weights.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8", "int4", "fp16"]),
    default="fp32",
    show_default=True,
    help="Of the weights; fp16, of everything, is for CUDA.",
)
@click.option(
    "--kv-cache",
    type=click.Choice(["fp32", "int8", "fp16"]),
    help="Of the cache.  [default: int8 with int8 and int4 weights, else that of the weights]",
)
@click.option(
    "--embed/--no-embed",
    default=None,
    help="Also write graphs that take a picture and need no host code.  [default: only with --variant demo]",
)
@click.option("--portable", is_flag=True, help="Write standard operators only, for runtimes without ONNX functions.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Pictures that set the scales and judge the loss.  [default: handwritten digits]",
)
@click.option(
    "--max-loss-increase",
    type=float,
    metavar="NATS",
    help="Refuse to lose more per token (of a mere classifier: per picture).  [default: 0.04]",
)
@click.option(
    "--link",
    is_flag=True,
    help="Have the checkpoint's own model.safetensors as the bundle's weights (fp32): a hard link.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Bundle directory.  [default: models/NAME-PRECISION]")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("as_json", "--json", is_flag=True, help="Print the result as JSON.")
@click.version_option(package_name="igpt-onnx")
def main(
    variant: str | None, checkpoint: str | None, clusters: Path | None, random_weights: bool, seed: int,
    precision: str, kv_cache: str | None, embed: bool | None, portable: bool, calibration: Path | None,
    max_loss_increase: float | None, link: bool, output: Path | None, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Export an ImageGPT checkpoint to a self-contained, verified ONNX bundle.

    A checkpoint is in Hugging Face layout: config.json, preprocessor_config.json, and model.safetensors or
    pytorch_model.bin. --variant small, medium or large takes openai/imagegpt-* from the hub. Or it is in
    TensorFlow's, as OpenAI published it: give the prefix of its files, and --clusters.
    """
    if (variant is None) == (checkpoint is None):
        raise click.UsageError("give exactly one of --variant and --checkpoint")
    if random_weights and variant in (None, "demo"):
        raise click.UsageError("--random-weights needs --variant small, medium, large or xl")
    if clusters is None and checkpoint is not None and _is_tensorflow(Path(checkpoint)):
        raise click.UsageError(f"{checkpoint} is a TensorFlow checkpoint; give its kmeans_centers.npy with --clusters")
    if clusters is not None and (checkpoint is None or Path(checkpoint).is_dir()):
        raise click.UsageError("--clusters goes with --checkpoint and the prefix of a TensorFlow checkpoint")
    signal.signal(signal.SIGTERM, _stop)
    with stages("starting") as stage:
        stage("loading torch")
        try:
            from igpt_export.checkpoint.checkpoint import load_checkpoint, random_checkpoint
            from igpt_export.checkpoint.openai import load_openai_checkpoint
            from igpt_export.export import export_bundle
            from igpt_export.precision.precision import Precision, default_kv_cache
        except ImportError as error:
            raise DeviceError(
                f"exporting needs more packages ({error}); run: pip install 'igpt-onnx[export]'"
            ) from error
    # No spinner here: a download draws its own progress bars.
    if random_weights and variant is not None:
        source = random_checkpoint(variant, seed)
    elif clusters is not None and checkpoint is not None:
        source = load_openai_checkpoint(Path(checkpoint), clusters)
    else:
        source = load_checkpoint(_source(variant) if checkpoint is None else checkpoint)
    stored = Precision(precision, kv_cache or default_kv_cache(precision))
    target = output or Path("models") / f"{source.name}-{stored}"
    with stages("exporting") as stage:
        manifest = export_bundle(
            source, target, stored, embed=variant == "demo" if embed is None else embed,
            profile="portable" if portable else "fused", calibration=calibration,
            max_loss_increase=max_loss_increase, link=link, force=force, stage=stage,
            count=stage.count,
        )  # fmt: skip
    record = {
        "output": str(target), "name": manifest.name, "verification": dict(manifest.verification),
        "certificate": manifest.certificate,
    }  # fmt: skip
    print_result("\n".join([*_report(manifest), str(target)]), record, as_json)


def _is_tensorflow(path: Path) -> bool:
    """Whether a path is the prefix, or one of the files, of a TensorFlow checkpoint."""
    return not path.is_dir() and (".ckpt" in path.name or Path(f"{path}.index").is_file())


def _source(variant: str | None) -> str:
    """Where a variant's checkpoint is: the hub, or for the demo model this source tree."""
    from igpt_export.checkpoint.config import hub_id

    if variant != "demo":
        return hub_id(str(variant))
    if not (DEMO_CHECKPOINT / "config.json").is_file():
        raise CheckpointError(
            f"no demo checkpoint at {DEMO_CHECKPOINT}: it comes with the source tree only; "
            "clone the repository, or use the demo bundle that is embedded in igpt-run"
        )
    return str(DEMO_CHECKPOINT)


def _report(manifest: Manifest) -> list[str]:
    """What was verified, a line a graph, and what the precision costs."""
    report = manifest.verification
    over = f"over {report['sequence']:.0f} positions, torch against ONNX Runtime"
    lines = [
        f"verified {graph}: largest difference {report[key]:.2g} {over}"
        for graph in manifest.graphs
        if (key := f"{graph}_max_abs_diff") in report
    ]
    certificate = manifest.certificate
    if certificate is None:
        return lines
    for graph in ("prefill", "decode"):
        if certificate[graph] is not None:
            loss = certificate[graph]["held_out"]
            lines.append(
                f"{graph} below fp32: {loss['increase']:+.4f} nats per token, KL {loss['kl_divergence']:.2g}, "
                f"top-1 agreement {loss['top1_agreement']:.2%} on {loss['pictures']} held-out pictures"
            )
    shift = certificate["features"]["held_out"]
    lines.append(f"features below fp32: relative error {shift['features_error']:.2g}")
    if shift["kl_divergence"] is not None:
        lines.append(f"classes below fp32: KL {shift['kl_divergence']:.2g}, agreement {shift['top1_agreement']:.2%}")
    return lines


def _stop(signum: int, frame: FrameType | None) -> None:
    """End as an exception would, so that the unfinished bundle is removed."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
