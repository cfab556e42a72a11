"""Pictures that a bundle brings along."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.examples import write_examples
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.probe.bake import bake_probe
from igpt_export.probe.fit import Linear, Probe
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.errors import ImageError, OptionError
from igpt_runtime.pictures.palette import resize_image

NAMES = [f"{number:02}" for number in range(10)]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Ten pictures of several sizes."""
    (tmp_path / "given").mkdir()
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 256, (8 + number, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"given/{name}.png")
    return tmp_path / "given"


def test_they_are_in_the_bundle_and_stay_there(tiny_checkpoint: Path, given: Path, tmp_path: Path) -> None:
    made = export_bundle(load_checkpoint(tiny_checkpoint), tmp_path / "bundle", ExportOptions(examples=given))
    probe = Probe(
        ("a", "b"),
        (1,),
        "hf",
        made.name,
        made.source["sha256"],
        Linear(np.zeros((2, 32), np.float32), np.zeros(2, np.float32)),
    )
    bake_probe(open_bundle(tmp_path / "bundle"), probe, tmp_path / "baked")
    for path in (tmp_path / "bundle", tmp_path / "baked"):
        bundle = open_bundle(path)
        examples = bundle.manifest.examples
        assert examples is not None and list(examples.names) == NAMES
        with Image.open(bundle.check_file(examples.file)) as sheet:
            assert sheet.size == (64, 16)
            for number, name in enumerate(NAMES):
                x, y = 8 * (number % 8), 8 * (number // 8)
                with Image.open(given / f"{name}.png") as picture:
                    expected = resize_image(picture, 8, 8)
                assert sheet.crop((x, y, x + 8, y + 8)).tobytes() == expected.tobytes()


def test_refusals(tiny_checkpoint: Path, given: Path, tmp_path: Path) -> None:
    form = load_checkpoint(tiny_checkpoint).image_format
    with pytest.raises(ImageError, match="--examples: .*nothing"):
        write_examples(tmp_path / "nothing", form, tmp_path)
    for number in range(10, 65):
        Image.new("RGB", (1, 1)).save(given / f"{number}.png")
    with pytest.raises(OptionError, match="has 65 pictures; give at most 64"):
        write_examples(given, form, tmp_path)
