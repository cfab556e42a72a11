"""The `igpt-run` command."""

import sys
import warnings

import click

from igpt_runtime.commands import drawing, machine, reading
from igpt_runtime.console import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="igpt-onnx")
def main() -> None:
    """Complete, sample, classify, embed and score pictures with an ImageGPT bundle on ONNX Runtime.

    Without --model, commands use the embedded demo model of handwritten digits. Pictures are PNG, JPEG, WebP, GIF or
    BMP files, or - for standard input.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters in a picture file is an error here


for command in (
    drawing.complete,
    drawing.sample,
    reading.classify,
    reading.features,
    reading.score,
    machine.info,
    machine.bench,
    machine.web,
):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
