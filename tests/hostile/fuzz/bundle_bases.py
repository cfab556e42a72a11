"""Small sound bundles of all kinds, besides those of the repository."""

from pathlib import Path


def make_bundles(directory: Path) -> None:
    """Export bundles of int8 and int4, with and without an embedded part, and one that only classifies."""
    import torch
    from tiny_checkpoints import BUNDLED, add_probe, save_checkpoint

    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.export import ExportOptions, export_bundle
    from igpt_export.precision.precision import Precision

    torch.set_num_threads(1)
    causal = save_checkpoint(directory / "checkpoints/causal", fields=BUNDLED)
    add_probe(causal, layer=1)
    labels = {"num_labels": 2, "problem_type": "multi_label_classification"}
    classifier = save_checkpoint(
        directory / "checkpoints/classifier", "ImageGPTForImageClassification", {**BUNDLED, **labels}
    )
    # Random weights feel rounding more than trained ones do: no limit to the loss.
    any_loss = float("inf")
    bundles = directory / "bundles"
    export_bundle(
        load_checkpoint(causal), bundles / "int8",
        ExportOptions(Precision("int8", "int8"), embed=True, max_loss_increase=any_loss),
    )  # fmt: skip
    export_bundle(
        load_checkpoint(causal), bundles / "int4",
        ExportOptions(Precision("int4", "fp32"), profile="portable", max_loss_increase=any_loss),
    )  # fmt: skip
    export_bundle(load_checkpoint(classifier), bundles / "classifier")
