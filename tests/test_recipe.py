"""The demo model's recipe runs: two short stages write a checkpoint that exports as any other does."""

import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from igpt_export.checkpoint import load_checkpoint

DEMO = Path(__file__).parent.parent / "models" / "demo"


@pytest.mark.slow
def test_training_writes_a_checkpoint(tmp_path: Path) -> None:
    size = ["--n-layer", "1", "--n-embd", "32", "--batch", "4", "--warmup", "1"]
    steps = ["--steps", "2", "--softened-steps", "2", "--output", str(tmp_path)]
    subprocess.run([sys.executable, DEMO / "train.py", *size, *steps], check=True)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.config.n_layer == 1 and checkpoint.config.n_positions == 256
    assert checkpoint.image_format.clusters.shape == (256, 3)
    transformers.ImageGPTForCausalImageModeling.from_pretrained(tmp_path)
