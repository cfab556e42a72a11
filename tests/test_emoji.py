"""The demo model's data and training, on a few made-up emoji and pictures."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from made_up_emoji import ENTRIES, TONES, make_packages
from PIL import Image

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_runtime import complete, open_session
from igpt_runtime.engine.generate import GenerationOptions
from igpt_runtime.errors import OptionError
from models.emoji import emoji, rendering
from models.emoji.sources import Demo, Folder

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("emoji")
    make_packages(directory)
    return directory


def test_what_is_read(packages: Path) -> None:
    found = emoji.load(packages)
    assert len(found) == 3 * (len(ENTRIES) - 1 + len(TONES)) and found.rgba.shape[1:] == (64, 64, 4)
    assert found.tones.sum() == 3 * len(TONES) and set(np.array(found.names)[found.tones]) == {"wave"}
    doctors = {group for name, group in zip(found.names, found.groups, strict=True) if "doctor" in name}
    assert len(doctors) == 1


def test_an_emoji_is_on_one_side(packages: Path) -> None:
    found = emoji.load(packages)
    train, held_out, versions = emoji.split(found)
    assert sorted([*train, *held_out, *versions]) == list(range(len(found)))
    groups = np.array(found.groups)
    assert held_out.size and not set(groups[held_out]) & set(groups[[*train, *versions]])
    # Of an emoji whose version is held out, those of the other vendors are trained on.
    assert versions.size and set(groups[versions]) <= set(groups[train])
    for group in set(groups[versions]):
        assert len(set(found.vendors[versions[groups[versions] == group]])) == 1


def test_on_white_it_is_what_a_file_gives(packages: Path) -> None:
    """As Pillow lays it over white and shrinks it."""
    found = emoji.load(packages)
    pictures = rendering.on_white(found, np.arange(3))
    for row, vendor in enumerate(emoji.VENDORS):
        assert found.names[row] == "rocket" and found.vendors[row] == row
        with Image.open(packages / vendor.name / "package" / vendor.folder / f"rocket{vendor.suffix}") as image:
            white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        expected = np.asarray(white.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR), np.int64)
        assert np.abs(pictures[row] - expected).max() <= 2


def test_varied_pictures(packages: Path) -> None:
    found = emoji.load(packages)
    rows = np.tile(np.arange(len(found)), 5)
    first, again, other = (rendering.vary(found, rows, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    corners = first[:, 0, 0]
    assert (corners == 255).all(1).mean() > 0.4 and (corners == 0).all(1).mean() > 0.03
    assert len(np.unique(corners, axis=0)) > 50


def test_batches_depend_on_the_seed_only(packages: Path) -> None:
    source = Demo(packages)
    first, again = (source.batch(50, np.random.default_rng(3)) for _ in range(2))
    assert (first == again).all() and first.shape == (50, 32, 32, 3)
    assert len(source.held_out()) == len(source.held_out_rows())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty pictures of several sizes, in directories."""
    rng = np.random.default_rng(0)
    for number in range(40):
        place = tmp_path / f"pictures/{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.kron(rng.integers(0, 256, (3, 4, 3), np.uint8), np.ones((10, 10, 1), np.uint8))
        Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "pictures"


def test_a_directory_of_pictures(folder: Path, tmp_path: Path) -> None:
    source = Folder(folder, mirror=False)
    kept = source.held_out()
    assert kept.shape == (2, 32, 32, 3)
    seen = {picture.tobytes() for picture in source.batch(2000, np.random.default_rng(0))}
    assert len(seen) == 38 and not seen & {picture.tobytes() for picture in kept}
    assert (
        len({picture.tobytes() for picture in Folder(folder, mirror=True).batch(3000, np.random.default_rng(0))}) == 76
    )
    (tmp_path / "one").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "one/a.png")
    with pytest.raises(OptionError, match="holds 1 picture; give a directory with at least two"):
        Folder(tmp_path / "one", mirror=False)


@pytest.mark.slow
def test_a_model_of_ones_own(folder: Path, tmp_path: Path) -> None:
    """From a directory of pictures to a completion."""
    arguments = ["--data", folder, "--output", tmp_path / "mine", "--work", tmp_path / "work"]
    arguments += ["--steps", 2, "--batch", 2, "--n-layer", 1, "--n-embd", 32, "--n-head", 1, "--warmup", 1]
    subprocess.run([sys.executable, "-m", "models.emoji.train", *map(str, arguments)], check=True, cwd=ROOT)
    checkpoint = load_checkpoint(tmp_path / "mine")
    assert checkpoint.image_format.clusters.shape == (512, 3) and checkpoint.config.n_positions == 1024
    transformers.ImageGPTForCausalImageModeling.from_pretrained(tmp_path / "mine")
    manifest = export_bundle(checkpoint, tmp_path / "bundle", ExportOptions())
    assert manifest.likelihood is not None and manifest.likelihood.pictures == "2 held-out pictures of mine"
    result = complete(open_session(tmp_path / "bundle"), folder / "0/0.png", GenerationOptions(n=1), keep=31)
    assert result.images[0].size == (32, 32) and result.likeness is not None


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    arguments = ["--data", str(tmp_path / "nothing"), "--work", str(tmp_path / "work")]
    done = subprocess.run(
        [sys.executable, "-m", "models.emoji.train", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and len(done.stderr.splitlines()) == 1
