"""What the two commands that draw pictures share: where the pictures go, and what is said of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from igpt_runtime.commands.options import Decorator, force_option, gathered
from igpt_runtime.console import print_result

if TYPE_CHECKING:
    from igpt_runtime.engine.generate import GenerationOptions
    from igpt_runtime.engine.session import Session
    from igpt_runtime.tasks.picture_output import PictureOptions


@dataclass(frozen=True)
class DrawingTarget:
    """Where drawn pictures go."""

    output: str | None  # contact sheet; - is stdout
    output_dir: str | None  # directory of contact sheets
    options: "PictureOptions"


def drawing_options(*places: Decorator) -> Decorator:
    """Where pictures go, as `target: DrawingTarget`. places: the option --output, and --output-dir if there is one."""

    def make(output: str | None, output_dir: str | None, options: "PictureOptions") -> DrawingTarget:
        return DrawingTarget(output, output_dir, options)

    def make_one(output: str | None, options: "PictureOptions") -> DrawingTarget:
        return DrawingTarget(output, None, options)

    return gathered("target", make if len(places) > 1 else make_one, *places, _picture_options())


def _picture_options() -> Decorator:
    """What is written besides the contact sheet, as `options: PictureOptions`."""

    def make(
        separate: bool, gif: bool, scale: int | None, size: int | None, resample: str, force: bool
    ) -> "PictureOptions":
        from igpt_runtime.tasks.picture_output import PictureOptions

        return PictureOptions(separate, gif, scale, size, resample, force)

    return gathered(
        "options",
        make,
        click.option(
            "--separate",
            is_flag=True,
            help="Also write each picture by itself, OUT-1.png ..., where OUT.png is the sheet.",
        ),
        click.option("--gif", is_flag=True, help="Also write OUT.gif, an animation of the drawing."),
        click.option(
            "--scale",
            type=int,
            help="Enlarge every pixel this many times.  [default: 1 with --separate, else about 128 px a picture]",
        ),
        click.option(
            "--size",
            type=int,
            metavar="PIXELS",
            help="Write each picture by itself as with --separate, its longer side of this many pixels.",
        ),
        click.option(
            "--resample",
            type=click.Choice(["nearest", "bilinear", "bicubic", "lanczos"]),
            default="nearest",
            show_default=True,
            help="Filter that enlarges to --size; nearest keeps pixels square.",
        ),
        force_option,
    )


def settings(session: "Session", options: "GenerationOptions", drawn: int, seconds: float) -> dict[str, Any]:
    """How pictures were drawn, as JSON. drawn: tokens."""
    used = options.resolved(session.manifest)
    return {
        "n": used.n, "seed": used.seed, "temperature": used.temperature, "top_k": used.top_k, "top_p": used.top_p,
        "seconds": seconds, "tokens_per_second": drawn / seconds, "provider": session.provider,
    }  # fmt: skip


def report(what: str, files: list[str], record: dict[str, Any], as_json: bool) -> None:
    """Say on stderr how the pictures were drawn, and print where they are; one on stdout leaves no room for that."""
    sampling = f"temperature {record['temperature']:g}, top-k {record['top_k']}, top-p {record['top_p']:g}"
    count = record["n"] * len(record.get("images", [None]))
    drawn = f"{count} pictures" if count > 1 else "1 picture"
    speed = f"{drawn} in {record['seconds']:.2f} s, {record['tokens_per_second']:,.0f} tokens/s"
    click.echo(f"{what}; {speed}; seed {record['seed']}, {sampling}; {record['provider']}", err=True)
    if files:
        print_result("\n".join(files), record, as_json)
