"""The tiny checkpoint of the project's tests as bundles in fp32 and fp16: `python tiny.py PROJECT OUTPUT`."""

import sys
import tempfile
from pathlib import Path

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.precision.precision import Precision


def main(project: Path, output: Path) -> None:
    sys.path.insert(0, str(project / "tests"))
    from tiny_checkpoints import BUNDLED, add_probe, save_checkpoint

    with tempfile.TemporaryDirectory() as directory:
        checkpoint = save_checkpoint(Path(directory) / "tiny", fields=BUNDLED)
        add_probe(checkpoint, layer=1)
        for weights in ("fp32", "fp16"):
            options = ExportOptions(
                Precision(weights, weights), max_loss_increase=None if weights == "fp32" else float("inf")
            )
            export_bundle(load_checkpoint(checkpoint), output / f"tiny-{weights}", options)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
