"""What pictures of a model's own kind cost it, beside transformers' losses of the same pictures."""

from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.precision.precision import Precision
from igpt_runtime import open_session, tokens_of
from igpt_runtime.errors import OptionError

SIDE, COLUMNS, ROWS = 8, 8, 4  # of the sheet: 16 pictures calibrate, 16 are held out


def pictures(n: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a sheet of pictures."""
    directory = copytree(tiny_checkpoint, tmp_path_factory.mktemp("own") / "tiny")
    sheet = pictures(COLUMNS * ROWS).reshape(ROWS, COLUMNS, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(sheet.reshape(ROWS * SIDE, COLUMNS * SIDE, 3)).save(directory / "calibration.png")
    return directory


def transformers_costs(checkpoint: Path, bundle: Path, kept: np.ndarray) -> np.ndarray:
    """Nats of every token of pictures, float64 [pictures, SIDE, SIDE]."""
    model = transformers.ImageGPTForCausalImageModeling.from_pretrained(checkpoint)
    session = open_session(bundle)
    tokens = torch.from_numpy(np.stack([tokens_of(session, Image.fromarray(picture)) for picture in kept]))
    inputs = torch.cat([torch.full((len(tokens), 1), model.config.vocab_size - 1), tokens[:, :-1]], 1)
    with torch.no_grad():
        logits = model(inputs).logits
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    return losses.double().numpy().reshape(-1, SIDE, SIDE)


@pytest.mark.parametrize(
    "precision", [Precision(), pytest.param(Precision("int8", "int8"), marks=pytest.mark.slow)], ids=str
)
def test_of_the_checkpoints_own_pictures(checkpoint: Path, tmp_path: Path, precision: Precision) -> None:
    options = ExportOptions(precision, max_loss_increase=None if precision.is_exact else float("inf"))
    manifest = export_bundle(load_checkpoint(checkpoint), tmp_path / "bundle", options)
    assert manifest.likelihood is not None
    assert manifest.likelihood.pictures == "16 held-out pictures of tiny"
    costs = transformers_costs(checkpoint, tmp_path / "bundle", pictures(COLUMNS * ROWS)[16:])
    for rows, found in enumerate(manifest.likelihood.by_rows, start=1):
        expected = np.quantile(costs[:, :rows].mean((1, 2)), (0.05, 0.5, 0.95))
        assert found == pytest.approx(expected, abs=1e-4 if precision.is_exact else 0.2)
    assert open_session(tmp_path / "bundle").manifest.likelihood == manifest.likelihood


def test_of_pictures_of_the_user(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for i, picture in enumerate(pictures(6)):
        Image.fromarray(picture).save(tmp_path / f"mine/{i}.png")
    options = ExportOptions(calibration=tmp_path / "mine")
    manifest = export_bundle(load_checkpoint(tiny_checkpoint), tmp_path / "bundle", options)
    assert manifest.likelihood is not None and manifest.certificate is None
    assert manifest.likelihood.pictures == "3 held-out pictures of mine"
    costs = transformers_costs(tiny_checkpoint, tmp_path / "bundle", pictures(6)[1::2])
    expected = np.quantile(costs.mean((1, 2)), (0.05, 0.5, 0.95))
    assert manifest.likelihood.by_rows[-1] == pytest.approx(expected, abs=1e-4)


def test_the_embedded_digits_are_not_of_every_models_kind(tiny_checkpoint: Path, tmp_path: Path) -> None:
    options = ExportOptions(Precision("int8", "int8"), max_loss_increase=float("inf"))
    assert export_bundle(load_checkpoint(tiny_checkpoint), tmp_path / "bundle", options).likelihood is None


def test_a_sheet_of_another_size_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    damaged = copytree(checkpoint, tmp_path / "damaged")
    Image.new("RGB", (SIDE * 8, SIDE * 3)).save(damaged / "calibration.png")
    with pytest.raises(OptionError, match=r"calibration.png has 64x24 pixels, which is no even number of rows"):
        export_bundle(load_checkpoint(damaged), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
