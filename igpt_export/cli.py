"""The `igpt-export` command: parses, calls the library, prints."""

import signal
import sys
from pathlib import Path
from types import FrameType

import click

from igpt_runtime.console import Command, print_result, stages
from igpt_runtime.errors import CheckpointError, DeviceError

DEMO_CHECKPOINT = Path(__file__).resolve().parent.parent / "models" / "demo"


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--variant", type=click.Choice(["small", "medium", "large", "xl", "demo"]), help="A model of the family.")
@click.option("--checkpoint", metavar="DIR_OR_HUB_ID", help="A checkpoint directory, or owner/name on the hub.")
@click.option("--random-weights", is_flag=True, help="Make up the variant's weights instead of downloading them.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of --random-weights.")
@click.option("--output", type=click.Path(path_type=Path), help="Bundle directory.  [default: models/NAME-fp32]")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("as_json", "--json", is_flag=True, help="Print the result as JSON.")
@click.version_option(package_name="igpt-onnx")
def main(
    variant: str | None, checkpoint: str | None, random_weights: bool, seed: int, output: Path | None, force: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Export an ImageGPT checkpoint to a self-contained, verified ONNX bundle.

    A checkpoint is in Hugging Face layout: config.json, preprocessor_config.json, and model.safetensors or
    pytorch_model.bin. --variant small, medium or large takes openai/imagegpt-* from the hub.
    """
    if (variant is None) == (checkpoint is None):
        raise click.UsageError("give exactly one of --variant and --checkpoint")
    if random_weights and variant in (None, "demo"):
        raise click.UsageError("--random-weights needs --variant small, medium, large or xl")
    signal.signal(signal.SIGTERM, _stop)
    with stages("starting") as stage:
        stage("loading torch")
        try:
            from igpt_export.checkpoint import load_checkpoint, random_checkpoint
            from igpt_export.export import PRECISION, export_bundle
        except ImportError as error:
            raise DeviceError(
                f"exporting needs more packages ({error}); run: pip install 'igpt-onnx[export]'"
            ) from error
    # No spinner here: a download draws its own progress bars.
    if random_weights and variant is not None:
        source = random_checkpoint(variant, seed)
    else:
        source = load_checkpoint(_source(variant) if checkpoint is None else checkpoint)
    target = output or Path("models") / f"{source.name}-{PRECISION}"
    with stages("exporting") as stage:
        manifest = export_bundle(source, target, force=force, stage=stage)
    record = {"output": str(target), "name": manifest.name, "verification": dict(manifest.verification)}
    print_result("\n".join([*_report(dict(manifest.verification)), str(target)]), record, as_json)


def _source(variant: str | None) -> str:
    """Where a variant's checkpoint is: the hub, or for the demo model this source tree."""
    from igpt_export.config import hub_id

    if variant != "demo":
        return hub_id(str(variant))
    if not (DEMO_CHECKPOINT / "config.json").is_file():
        raise CheckpointError(
            f"no demo checkpoint at {DEMO_CHECKPOINT}: it comes with the source tree only; "
            "clone the repository, or use the demo bundle that is embedded in igpt-run"
        )
    return str(DEMO_CHECKPOINT)


def _report(verification: dict[str, float]) -> list[str]:
    """The verification report, a line a graph."""
    over = f"over {verification['sequence']:.0f} positions, torch against ONNX Runtime"
    lines = [f"verified prefill: largest difference {verification['prefill_max_abs_diff']:.2g} {over}"]
    if "decode_max_abs_diff" in verification:
        lines.append(f"verified decode:  largest difference {verification['decode_max_abs_diff']:.2g} {over}")
    return lines


def _stop(signum: int, frame: FrameType | None) -> None:
    """End as an exception would, so that the unfinished bundle is removed."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
