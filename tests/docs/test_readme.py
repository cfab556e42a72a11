"""What the README's samples compute, beyond that they run."""

from pathlib import Path

from click.testing import CliRunner
from docs.samples import ROOT, Place, samples_of
from PIL import Image

import igpt_runtime.cli


def test_onnxruntime_alone_draws_what_the_command_draws(tmp_path: Path) -> None:
    programs = [sample for sample in samples_of(ROOT / "README.md") if sample.language == "python"]
    (bare,) = (sample for sample in programs if "igpt_runtime import" not in sample.text)
    assert len([line for line in bare.text.splitlines() if line]) <= 12
    Place(tmp_path).run(bare)
    arguments = ["complete", str(ROOT / "models/demo/examples/seven.png"), "--seed", "1", "-n", "1", "--separate"]
    assert CliRunner().invoke(igpt_runtime.cli.main, [*arguments, "-o", str(tmp_path / "ours.png")]).exit_code == 0
    assert Image.open(tmp_path / "bare.png").tobytes() == Image.open(tmp_path / "ours-1.png").tobytes()
