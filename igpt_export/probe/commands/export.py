"""`igpt-run probe export`: makes a probe the classifier of a bundle."""

from pathlib import Path

import click

from igpt_export.probe.commands.shared import needing, probe_path
from igpt_runtime.commands.options import force_option, json_option, model_option
from igpt_runtime.console import Command, print_result, progress_option, stages


@click.command(cls=Command)
@click.argument("probe_file", metavar="PROBE", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Bundle directory.  [default: MODEL-probe]")
@model_option
@force_option
@progress_option
@json_option
def export(
    probe_file: Path, output: Path | None, model: str | None, force: bool, as_json: bool
) -> None:  # fmt: skip
    """Write the bundle anew with PROBE, a probe.npz or the directory it is in, as its classifier.

    The bundle may be of another precision than the one the probe was fitted on, but must be of the same checkpoint.
    """
    from igpt_runtime.bundle.bundle import open_bundle

    with needing("probe"):
        from igpt_export.probe.fit import load_probe
    with needing("export"):
        from igpt_export.probe.bake import bake_probe

    bundle = open_bundle(model)
    beside = model is not None and Path(model).is_dir()  # neither in the package nor in the hub's cache
    target = output or Path(f"{bundle.path if beside else bundle.manifest.name}-probe")
    with stages("exporting") as progress:
        found = load_probe(probe_path(probe_file))
        made = bake_probe(bundle, found, target, force=force, progress=progress)
    assert made.classifier is not None
    record = {"output": str(target), "labels": list(made.classifier.labels), "layers": list(made.classifier.layers)}
    print_result(str(target), record, as_json)
