"""The `igpt-export` command: parses, calls the library, prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.commands.options import gathered
from igpt_runtime.console import Command, print_result, progress_option, stages
from igpt_runtime.errors import INSTALL, CheckpointError, DeviceError

if TYPE_CHECKING:
    from igpt_export.checkpoint.checkpoint import Checkpoint
    from igpt_export.export import ExportOptions

# The variants that are checkpoints of the source tree.
TRAINED = {name: Path(__file__).resolve().parent.parent / "models" / name for name in ("demo", "digits")}


@dataclass(frozen=True)
class Source:
    """What is exported."""

    variant: str | None
    checkpoint: str | None
    clusters: Path | None
    random_weights: bool
    seed: int

    def __post_init__(self) -> None:
        """Raise click.UsageError for options that do not go together."""
        if (self.variant is None) == (self.checkpoint is None):
            raise click.UsageError("give exactly one of --variant and --checkpoint")
        if self.random_weights and self.variant in (None, *TRAINED):
            raise click.UsageError("--random-weights needs --variant small, medium, large or xl")
        if self.clusters is None and self.checkpoint is not None and _is_tensorflow(Path(self.checkpoint)):
            raise click.UsageError(
                f"{self.checkpoint} is a TensorFlow checkpoint; give its kmeans_centers.npy with --clusters"
            )
        if self.clusters is not None and (self.checkpoint is None or Path(self.checkpoint).is_dir()):
            raise click.UsageError("--clusters goes with --checkpoint and the prefix of a TensorFlow checkpoint")

    def load(self) -> "Checkpoint":
        """Read it, or make it up."""
        from igpt_export.checkpoint.checkpoint import load_checkpoint, random_checkpoint
        from igpt_export.checkpoint.openai import load_openai_checkpoint

        if self.random_weights and self.variant is not None:
            return random_checkpoint(self.variant, self.seed)
        if self.clusters is not None and self.checkpoint is not None:
            return load_openai_checkpoint(Path(self.checkpoint), self.clusters)
        return load_checkpoint(_place(self.variant) if self.checkpoint is None else self.checkpoint)


@dataclass(frozen=True)
class How:
    """How it is exported."""

    precision: str
    kv_cache: str | None
    embed: bool | None
    single_file: bool
    portable: bool
    calibration: Path | None
    examples: Path | None
    max_loss_increase: float | None
    link: bool
    force: bool

    def __post_init__(self) -> None:
        """Raise click.UsageError for options that do not go together."""
        if self.single_file and self.embed is False:
            raise click.UsageError("--single-file is of the graphs that --no-embed leaves out; give one of them")

    def options(self, variant: str | None) -> "ExportOptions":
        """As the library takes it."""
        from igpt_export.export import ExportOptions
        from igpt_export.precision.precision import Precision, default_kv_cache

        own = TRAINED.get(str(variant))
        return ExportOptions(
            precision=Precision(self.precision, self.kv_cache or default_kv_cache(self.precision)),
            profile="portable" if self.portable else "fused",
            embed=self.single_file or (own is not None if self.embed is None else self.embed),
            single_file=self.single_file,
            calibration=self.calibration,
            examples=own / "examples" if own is not None and self.examples is None else self.examples,
            max_loss_increase=self.max_loss_increase,
            link=self.link,
            force=self.force,
        )


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@gathered(
    "source",
    Source,
    click.option(
        "--variant",
        type=click.Choice(["small", "medium", "large", "xl", *TRAINED]),
        help="Published size, or a model of the source tree: demo or digits.",
    ),
    click.option(
        "--checkpoint",
        metavar="DIR|OWNER/NAME|PREFIX",
        help="Checkpoint directory, name on the Hugging Face hub, or prefix of OpenAI's files (model.ckpt-1000000).",
    ),
    click.option(
        "--clusters",
        type=click.Path(path_type=Path),
        metavar="NPY",
        help="Colours of a checkpoint of OpenAI: its file kmeans_centers.npy.",
    ),
    click.option(
        "--random-weights", is_flag=True, help="Use random weights of the variant's size instead of downloading it."
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of --random-weights."),
)
@gathered(
    "how",
    How,
    click.option(
        "--precision",
        type=click.Choice(["fp32", "int8", "int4", "fp16"]),
        default="fp32",
        show_default=True,
        help="Precision of the weights; fp16 is that of everything, for CUDA.",
    ),
    click.option(
        "--kv-cache",
        type=click.Choice(["fp32", "int8", "fp16"]),
        help="Precision of the key/value cache.  [default: int8 with int8 and int4 weights, else that of the weights]",
    ),
    click.option(
        "--embed/--no-embed",
        default=None,
        help="Also write graphs of a picture that need no host code.  [default: only with --variant demo or digits]",
    ),
    click.option(
        "--single-file",
        is_flag=True,
        help="As --embed, and each of these graphs holds its weights, up to 2 GB; so a program needs this one file.",
    ),
    click.option(
        "--portable",
        is_flag=True,
        help="Write graphs of standard operators only, for runtimes that know no ONNX functions.",
    ),
    click.option(
        "--calibration",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Pictures like those of the training: some set the scales, others measure the loss, and what such "
        "pictures cost.  [default: calibration.png beside the checkpoint, else handwritten digits]",
    ),
    click.option(
        "--examples",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Pictures that the bundle brings along to be tried with.",
    ),
    click.option(
        "--max-loss-increase",
        type=float,
        metavar="NATS",
        help="Refuse a bundle that loses more per token (a classifier without language model: per picture).  "
        "[default: 0.04]",
    ),
    click.option(
        "--link",
        is_flag=True,
        help="In fp32, hard-link the checkpoint's model.safetensors instead of writing the weights again.",
    ),
    click.option("--force", is_flag=True, help="Replace an existing bundle."),
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Bundle directory.  [default: models/NAME-PRECISION]"
)
@progress_option
@click.option("as_json", "--json", is_flag=True, help="Print the result as JSON.")
@click.version_option(package_name="igpt-onnx")
def main(source: Source, how: How, output: Path | None, as_json: bool) -> None:
    """Export an ImageGPT checkpoint to a self-contained, verified ONNX bundle.

    Give either --variant or --checkpoint. --variant small, medium or large downloads openai/imagegpt-* from the hub;
    xl is not there and needs --random-weights.

    A checkpoint has the files of Hugging Face: config.json, preprocessor_config.json, and model.safetensors or
    pytorch_model.bin. A checkpoint of TensorFlow, as OpenAI published it, is taken too: give the prefix of its files
    and --clusters.
    """
    with stages("starting") as progress:
        progress.stage("loading torch")
        try:
            from igpt_export.export import export_bundle
        except ImportError as error:
            raise DeviceError(f"exporting needs more packages ({error}); {INSTALL} '.[export]'") from error
    options = how.options(source.variant)
    # No spinner here: a download draws its own progress bars.
    checkpoint = source.load()
    target = output or Path("models") / f"{checkpoint.name}-{options.precision}"
    with stages("exporting") as progress:
        manifest = export_bundle(checkpoint, target, options, progress)
    record = {
        "output": str(target), "name": manifest.name, "verification": dict(manifest.verification),
        "certificate": manifest.certificate,
    }  # fmt: skip
    print_result("\n".join([*_report(manifest), str(target)]), record, as_json)


def _is_tensorflow(path: Path) -> bool:
    """Whether a path is the prefix, or one of the files, of a TensorFlow checkpoint."""
    return not path.is_dir() and (".ckpt" in path.name or Path(f"{path}.index").is_file())


def _place(variant: str | None) -> str:
    """Where a variant's checkpoint is: the hub, or for the trained models this source tree."""
    from igpt_export.checkpoint.config import hub_id

    own = TRAINED.get(str(variant))
    if own is None:
        return hub_id(str(variant))
    if not (own / "config.json").is_file():
        raise CheckpointError(
            f"no checkpoint at {own}: it comes with the source tree only; "
            f"clone the repository, or use the bundle that is embedded in igpt-run: --model {variant}"
        )
    return str(own)


def _report(manifest: Manifest) -> list[str]:
    """What was verified, a line a graph, and what the precision costs."""
    report, certificate = manifest.verification, manifest.certificate
    over = f"over {report['sequence']:.0f} positions, torch against ONNX Runtime"
    # What the tolerance limits.
    figure = ("max_abs_diff", "largest difference") if certificate is None else ("relative_error", "relative error")
    lines = [
        f"verified {graph}: {figure[1]} {report[key]:.2g} {over}"
        for graph in manifest.graphs
        if (key := f"{graph}_{figure[0]}") in report
    ]
    if certificate is None:
        return lines
    lines.append(
        f"(root mean square of the differences over that of torch's values, at most {report['tolerance']:g}); "
        "what the precision costs was measured:"
    )
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
