"""The scripts of the model of digits run: a short training, and the claims of the paper on a few digits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from PIL import Image
from safetensors.numpy import load_file

from igpt_export.checkpoint.checkpoint import load_checkpoint
from models.digits import reproduce

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "models" / "digits"


@pytest.mark.slow
def test_training_writes_a_checkpoint(tmp_path: Path) -> None:
    size = ["--n-layer", "1", "--n-embd", "32", "--n-head", "1", "--batch", "4", "--warmup", "1", "--steps", "2"]
    size += ["--fine-tuning-steps", "1"]
    places = ["--output", tmp_path / "last", "--work", tmp_path / "work", "--snapshots", tmp_path / "snapshots"]
    command = [sys.executable, "-m", "models.digits.train", *size, *map(str, places)]
    subprocess.run(command, check=True, cwd=ROOT)
    checkpoint = load_checkpoint(tmp_path / "last")
    assert checkpoint.config.n_layer == 1 and checkpoint.config.n_positions == 256
    assert checkpoint.image_format.clusters.shape == (256, 3)
    transformers.ImageGPTForCausalImageModeling.from_pretrained(tmp_path / "last")
    before, after = (load_file(tmp_path / place / "model.safetensors") for place in ("snapshots/step-2", "last"))
    assert before.keys() == after.keys()  # the classifier of the fine-tuning is not kept
    assert any((before[name] != tensor).any() for name, tensor in after.items())


@pytest.mark.slow
def test_claims_are_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, load = (400, 60, 60), reproduce.load_parts

    def some(*, plain: bool = False) -> list[reproduce.Part]:
        return [reproduce.Part(p.pictures[:n], p.labels[:n]) for p, n in zip(load(plain=plain), counts, strict=True)]

    few = {"SNAPSHOTS": (), "DRAWS": 2, "COMPONENTS": (8,), "LABELS_PER_CLASS": (1, 4), "load_parts": some}
    for name, value in few.items():
        monkeypatch.setattr(reproduce, name, value)
    for width in reproduce.WIDTHS:  # what a training would have left
        (tmp_path / f"work/width-{width}").mkdir(parents=True)
        (tmp_path / f"work/width-{width}/step-{reproduce.STEPS}").symlink_to(DIGITS)
    arguments = ["--work", tmp_path / "work", "--output", tmp_path / "claims"]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
    reproduce.main()
    figures = json.loads((tmp_path / "claims/figures.json").read_text())
    assert [row["layers"] for row in figures["layers"]] == [[layer] for layer in range(7)]
    assert max(row["held_out"] for row in figures["layers"]) > 0.85
    assert {(row["labels_per_class"], row["input"]) for row in figures["low_data"]} == {
        (count, name) for count in (1, 4) for name in ("features", "pca", "pixels")
    }
    assert len(figures["snapshots"]) == 3 and all(abs(row["nats"] - 0.66) < 0.1 for row in figures["snapshots"])
    for name in ("layers", "loss", "low-data", "pictures"):
        with Image.open(tmp_path / f"claims/{name}.png") as image:
            assert image.width > 500 and image.getcolors(1 << 24)
