"""The `igpt-run` command."""

import warnings
from collections.abc import Callable

import click

from igpt_runtime.commands.bench import bench
from igpt_runtime.commands.classify import classify
from igpt_runtime.commands.complete import complete
from igpt_runtime.commands.doctor import doctor
from igpt_runtime.commands.features import features
from igpt_runtime.commands.info import info
from igpt_runtime.commands.sample import sample
from igpt_runtime.commands.score import score
from igpt_runtime.commands.web import web
from igpt_runtime.console import Group

_PLUGINS = "igpt_runtime.commands"  # entry points of this group are commands too


class _Commands(Group):
    """Commands of this package, and those that other packages bring along."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        plugin = None if command is not None else _plugins().get(cmd_name)
        return command if plugin is None else plugin()


def _plugins() -> dict[str, Callable[[], click.Command]]:
    """By name, what loads each."""
    from importlib.metadata import entry_points  # slow to import, and not needed for the commands here

    return {entry.name: entry.load for entry in entry_points(group=_PLUGINS)}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="igpt-onnx")
def main() -> None:
    """Complete, sample, classify, embed and score pictures with an ImageGPT bundle on ONNX Runtime.

    Without --model, commands use the embedded demo model of handwritten digits. Pictures are PNG, JPEG, WebP, GIF or
    BMP files, or - for standard input. Results go to stdout, progress to stderr.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters in a picture file is an error here


for command in (complete, sample, classify, features, score, info, bench, doctor, web):
    main.add_command(command)
