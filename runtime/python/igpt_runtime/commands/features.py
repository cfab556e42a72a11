"""`igpt-run features`: writes the pooled states of pictures."""

import contextlib
import tempfile
from pathlib import Path

import click

from igpt_runtime.commands.options import (
    ModelOptions,
    Reading,
    Target,
    filled,
    json_option,
    layers_option,
    model_options,
    parse_layers,
    protocol_option,
    reading_options,
    target_option,
)
from igpt_runtime.console import Command, print_result, progress_option


@click.command(cls=Command)
@reading_options
@target_option("File to write: .npz or .parquet; - for .npz on stdout.", required=True)
@layers_option
@protocol_option
@model_options
@progress_option
@json_option
def features(
    reading: Reading, target: Target, layers: str, protocol: str, model: ModelOptions, as_json: bool
) -> None:  # fmt: skip
    """Write the states of IMAGES at some layers, each the mean over all positions.

    IMAGES are files, directories (all pictures below them), or - for standard input. An interrupted run leaves
    OUTPUT.partial, and the same command goes on where it ended.
    """
    from igpt_runtime.tasks.feature_files import feature_suffix, write_features
    from igpt_runtime.tasks.feature_store import FeatureStore, feature_request, file_identity, remove_unbegun

    output = str(target.path)
    feature_suffix(output)
    reading.begin()
    chosen = parse_layers(layers)
    session = model.open()
    identities = [file_identity(name) for name in reading.names]
    request = feature_request(session, identities, layers=chosen, protocol=protocol, crop=reading.crop)
    partial = Path(f"{output}.partial")
    remove_unbegun(partial)
    target.check(as_json=as_json)
    with contextlib.ExitStack() as stack:
        if output == "-":
            partial = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "features"
        store = FeatureStore(partial, request, restart=target.force)
        again = output != "-" and "-" not in reading.names
        with filled(store, session, reading.pictures, reading.leave_out, resumable=again):
            names = [reading.names[i] for i in store.indices]
            write_features(output, store.values(), names, request, force=target.force)
        store.remove()
    record = {
        "output": output, "images": [{"image": name} for name in names], "layers": request["layers"],
        "n_embd": request["n_embd"], "protocol": protocol, "skipped": reading.broken,
    }  # fmt: skip
    if output != "-":
        print_result(output, record, as_json)
    reading.finish()
