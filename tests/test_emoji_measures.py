"""What the demo model is measured by, on a few made-up emoji and a tiny model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_emoji import make_packages

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_runtime.bundle.config import SamplingDefaults
from models.emoji import evaluate, held_out, judge, measures
from models.emoji.emoji import Bytes
from models.emoji.sources import Demo
from models.emoji.train import SIZE
from models.training import checkpoint
from models.training.command import Size, measured_on_the_way
from models.training.sheet import save_sheet
from models.training.start import start


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    directory = tmp_path_factory.mktemp("emoji")
    make_packages(directory)
    return Demo(directory)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of seconds instead of an hour."""
    monkeypatch.setattr(measures, "COUNTED", 40)
    monkeypatch.setattr(measures, "PROBED", (120, 60))
    monkeypatch.setattr(measures, "FROM_NOTHING", 2)
    monkeypatch.setattr(judge, "_STEPS", 2)
    monkeypatch.setattr(evaluate, "TRIED", (measures.PLAIN, SamplingDefaults(top_k=4)))
    monkeypatch.setattr(evaluate, "_TRIED_COPIES", 1)
    monkeypatch.setattr(evaluate, "_SHOWN", 2)
    monkeypatch.setattr(evaluate, "_SAMPLES", 8)
    monkeypatch.setattr(measures, "photo_squares", lambda n: photographs()[:4])
    monkeypatch.setattr(measures, "palette", lambda clusters: {"china": {"palette": 1.0, "best": 0.5}})


def photographs() -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def test_twins_are_left_out(source: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of discs that differ in colour only, all are twins; of pictures that differ, none."""
    assert held_out.split(source)[2] == len(source.held_out_rows())
    monkeypatch.setattr(held_out, "_TWIN", 2.0)
    validation, test, twins = held_out.split(source)
    assert twins == 0 and len(validation) == min(128, len(source.held_out_rows()))
    assert not set(validation.groups) & set(test.groups)


def test_brightness_sees_no_hue() -> None:
    rng = np.random.default_rng(0)
    shape = rng.integers(0, 2, (1, 32, 32, 1)) * np.ones((1, 1, 1, 3))
    red, green = (np.uint8(255 - shape * (255 - np.array(colour))) for colour in ((200, 0, 0), (0, 90, 0)))
    other = rng.integers(0, 256, (1, 32, 32, 3), np.uint8)
    seen = held_out.brightness(np.concatenate([red, green, other]))
    alike = seen @ seen.T
    assert alike[0, 1] > 0.999 and abs(alike[0, 2]) < 0.2


def test_standard_errors_count_groups() -> None:
    values, groups = np.random.default_rng(0).normal(size=400), [str(i) for i in range(400)]
    alone = held_out.standard_error(values, groups)
    assert alone == pytest.approx(values.std() / 20, rel=1e-6)
    doubled = held_out.standard_error(np.concatenate([values, values]), groups + groups)
    assert doubled == pytest.approx(alone, rel=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_an_evaluation(source: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes the checkpoint's probe and sampling, the figures and the pictures; a second run measures nothing."""
    monkeypatch.setattr(held_out, "_TWIN", 2.0)
    monkeypatch.setattr(held_out, "measured_on_the_way", lambda n: measured_on_the_way(n)[: n // 2])
    size = Size(SIZE.side, SIZE.n_clusters, n_layer=1, n_embd=32, n_head=1)
    clusters = np.random.default_rng(0).uniform(-1, 1, (512, 3)).astype(np.float32)
    model = start(size.config(), size.side, torch.from_numpy(clusters), 0)
    directory = tmp_path / "model"
    checkpoint.save(directory, model, clusters)
    save_sheet(directory / "calibration.png", source.batch(8, np.random.default_rng(0)), photographs().repeat(2, 0))
    places = {"--directory": directory, "--data": source.directory, "--work": tmp_path / "work", "--copies": 1}
    monkeypatch.setattr("sys.argv", ["evaluate", *(str(part) for pair in places.items() for part in pair)])
    evaluate.main()
    figures = json.loads((directory / "metrics.json").read_text())
    assert 5 < figures["likelihood"]["model"] < 8 and figures["likelihood"]["uniform"] == pytest.approx(np.log(512))
    assert set(figures["unlike"]) == {"seconds", "held-out emoji", "photographs", "noise", "digits in any ink"}
    assert {row["top_k"] for row in figures["tried_on_validation"]} == {0, 4}
    written = load_checkpoint(directory)
    assert written.classifier is not None and set(written.classifier.labels) == set(source.emoji.categories)
    assert written.sampling.top_k == figures["sampling"]["top_k"]
    assert 1 <= len(list((directory / "examples").glob("*.png"))) <= 8
    assert (directory / "completions.png").exists() and (directory / "samples.png").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.json")}
    evaluate.main()
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.json")}
