"""`igpt-run probe`: the group that the runtime finds by its entry point."""

import click

from igpt_export.probe.commands.evaluate import evaluate
from igpt_export.probe.commands.export import export
from igpt_export.probe.commands.fit import fit
from igpt_runtime.console import Group


@click.group(cls=Group)
def probe() -> None:
    """Fit linear classifiers on a bundle's features, measure them, and make one a part of the bundle."""


for command in (fit, evaluate, export):
    probe.add_command(command)
