"""Likelihood against transformers' cross entropy, from picture files to tables, heat maps and exit codes."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_sample_image

from igpt_runtime import BundleError, OptionError, Session, open_session, score
from igpt_runtime.cli import main
from igpt_runtime.pictures.folder import find_pictures, unique_stems
from igpt_runtime.pictures.palette import resize_image
from igpt_runtime.tasks.score import map_of

PHOTO = Image.fromarray(load_sample_image("china.jpg"))
PICTURES = [PHOTO.crop((x, 2 * x, x + 60, 2 * x + 60 + x)) for x in range(0, 100, 10)]


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return open_session(tiny_bundle, device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, two of the same name, and what is none."""
    directory = tmp_path / "pictures"
    for name, picture in zip(("a.png", "b/a.png", "b/c.JPG"), PICTURES, strict=False):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(directory / name)
    (directory / "notes.txt").write_text("not a picture")
    (directory / ".hidden.png").write_text("not a picture")
    return directory


def cross_entropy(checkpoint: Path, pictures: list[Image.Image], *, crop: bool) -> np.ndarray:
    """transformers' loss of every pixel, [pictures, 64], of pictures that its own processor reads."""
    if crop:
        pictures = [resize_image(picture, 8, 8, crop=True) for picture in pictures]
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint, use_fast=False)
    model = transformers.ImageGPTForCausalImageModeling.from_pretrained(checkpoint).eval()
    tokens = torch.as_tensor(np.array(processor(pictures)["input_ids"]))
    fed = torch.cat([torch.full((len(tokens), 1), model.config.vocab_size - 1), tokens[:, :-1]], dim=1)
    with torch.no_grad():
        logits = model(fed).logits
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    found: np.ndarray = loss.numpy()
    return found


@pytest.mark.parametrize("crop", [False, True])
def test_nats_are_transformers_cross_entropy(session: Session, tiny_checkpoint: Path, crop: bool) -> None:
    done: list[int] = []
    found = list(score(session, PICTURES, crop=crop, progress=done.append))
    expected = cross_entropy(tiny_checkpoint, PICTURES, crop=crop)
    assert np.abs(np.stack([one.nats.ravel() for one in found]) - expected).max() < 1e-3
    assert found[0].nats_per_token == pytest.approx(expected[0].mean(), abs=1e-4)
    assert found[0].bits_per_pixel == pytest.approx(expected[0].mean() / math.log(2), abs=1e-4)
    assert sum(done) == len(PICTURES)


def test_table_summary_and_maps(session: Session, folder: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    command = ["score", str(folder), "--model", str(tiny_bundle), "--maps", str(maps), "--json"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "scores.csv")])
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    names = [str(folder / name) for name in ("a.png", "b/a.png", "b/c.JPG")]
    expected = [one.nats_per_token for one in score(session, names)]
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == names
    assert [float(row["nats_per_token"]) for row in rows] == pytest.approx(expected)
    assert record["nats_per_token"] == pytest.approx(np.mean(expected))
    assert record["standard_error_nats"] == pytest.approx(np.std(expected, ddof=1) / math.sqrt(3))
    assert record["standard_error_bits"] == pytest.approx(record["standard_error_nats"] / math.log(2))
    written = sorted(path.name for path in maps.iterdir())
    assert written == ["a-2-surprise.png", "a-surprise.png", "c-surprise.png"]
    (first,) = score(session, names[:1])
    with Image.open(maps / "a-surprise.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(map_of(session, first, "a.png")))


def test_json_table_and_a_single_picture(folder: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    command = ["score", str(folder / "a.png"), "--model", str(tiny_bundle), "-o", str(target)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0 and "mean of 1" in result.stdout and "+-" not in result.stdout
    record = json.loads(target.read_text())
    assert record["standard_error_nats"] is None and len(record["images"]) == 1


def test_broken_pictures(folder: Path, tiny_bundle: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    (folder / "b" / "b.png").write_bytes((folder / "a.png").read_bytes()[:100])
    target = tmp_path / "scores.csv"
    command = ["score", str(folder), "--model", str(tiny_bundle), "-o", str(target)]
    assert "b.png" in refused(main, *command)
    result = CliRunner().invoke(main, [*command, "--skip-broken", "--json"])
    assert result.exit_code == 3 and "skipped: " in result.stderr and "b.png" in result.stderr
    record = json.loads(result.stdout)
    assert record["pictures"] == 3 and len(record["skipped"]) == 1
    assert len(target.read_text().splitlines()) == 4


def test_bad_input(folder: Path, tiny_bundle: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copy(folder / "a.png", tmp_path / "a.png")
    model = ("--model", tiny_bundle)
    assert "holds no pictures" in refused(main, "score", "empty", *model)
    assert ".csv or .json" in refused(main, "score", "a.png", *model, "-o", "scores.txt")
    (tmp_path / "scores.csv").write_text("kept")
    assert "scores.csv" in refused(main, "score", "a.png", *model, "-o", "scores.csv")
    (tmp_path / "file").write_text("kept")
    assert "file is no directory" in refused(main, "score", "a.png", *model, "--maps", "file")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_text("not a picture")
    result = CliRunner().invoke(main, ["score", "broken", "--model", str(tiny_bundle), "--skip-broken"])
    assert result.exit_code == 1 and result.stderr.splitlines()[-1].startswith("Error: none of 1 pictures can be read")


def test_a_bundle_without_likelihood(write_checkpoint: Callable[..., Path], tmp_path: Path, session: Session) -> None:
    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.export import export_bundle

    export_bundle(load_checkpoint(write_checkpoint("ImageGPTModel")), tmp_path / "bare")
    with pytest.raises(BundleError, match="no language-model head"):
        next(score(open_session(tmp_path / "bare", device="cpu"), PICTURES[:1]))
    with pytest.raises(OptionError, match="no pictures"):
        next(score(session, []))


def test_finding_pictures(folder: Path) -> None:
    assert find_pictures(["-", "x.png", str(folder / "b")]).names == [
        "-",
        "x.png",
        *sorted(map(str, (folder / "b").iterdir())),
    ]
    assert unique_stems(["-", "a/b.png", "B.jpg", "c/b.png"]) == ["stdin", "b", "B-2", "b-3"]
