"""The files of drawn pictures: their sizes, and the text that draws them again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from igpt_runtime import GenerationOptions, complete, open_session
from igpt_runtime.errors import OptionError
from igpt_runtime.pictures.contact_sheet import resized
from igpt_runtime.tasks.picture_output import PictureOptions


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_sizes_and_filters_are_pillows(
    run: Callable[..., Result], tiny_bundle: Path, picture: Path, resample: str
) -> None:
    run("complete", picture, "-n", 2, "--seed", 5, "--size", 50, "--resample", resample, "-o", "out.png")
    drawn = complete(open_session(tiny_bundle), picture, GenerationOptions(n=2, seed=5)).images
    for number, image in enumerate(drawn, start=1):
        with Image.open(f"out-{number}.png") as found:
            assert found.tobytes() == image.resize((50, 50), Image.Resampling[resample.upper()]).tobytes()


def test_a_files_text_draws_it_again(run: Callable[..., Result], tiny_bundle: Path, picture: Path) -> None:
    arguments = ["--seed", 2**64 - 1, "--keep", 3, "--temperature", 0.7, "--top-k", 5, "--top-p", 0.9]
    run("complete", picture, "-n", 3, *arguments, "--separate", "-o", "out.png")
    session = open_session(tiny_bundle)
    for number in range(3):
        with Image.open(f"out-{number + 1}.png") as found:
            text, pixels = dict(found.text), found.tobytes()  # type: ignore[attr-defined]
        assert text.keys() == {"Software", "parameters"}
        parameters = json.loads(text["parameters"])
        names = ("n", "seed", "temperature", "top_k", "top_p")
        options = GenerationOptions(**{name: parameters[name] for name in names})
        again = complete(session, picture, options, keep=parameters["kept_rows"])
        assert again.images[parameters["sample"]].tobytes() == pixels
        assert parameters["sample"] == number
        assert parameters["checkpoint_sha256"] == session.manifest.source["sha256"]
    with Image.open("out.png") as sheet:
        assert "sample" not in json.loads(sheet.text["parameters"])  # type: ignore[attr-defined]
    # The picture's name is nobody's business.
    assert picture.name.encode() not in Path("out-1.png").read_bytes()


def test_from_nothing_and_to_other_formats(run: Callable[..., Result]) -> None:
    run("sample", "-n", 1, "--size", 64, "-o", "out.png")
    with Image.open("out-1.png") as found:
        assert found.size == (64, 64) and json.loads(found.text["parameters"])["kept_rows"] == 0  # type: ignore[attr-defined]
    run("sample", "-n", 1, "--size", 64, "-o", "out.webp")
    with Image.open("out-1.webp") as found:
        assert found.size == (64, 64)


def test_the_longer_side_has_the_size() -> None:
    assert resized(Image.new("RGB", (4, 8)), 100).size == (50, 100)
    assert resized(Image.new("RGB", (100, 1)), 10).size == (10, 1)


def test_refusals(run: Callable[..., Result], picture: Path) -> None:
    for arguments, message in (
        (["--size", "0"], "size must be 1 .. 8192 pixels, got 0"),
        (["--size", "9000"], "size must be 1 .. 8192 pixels, got 9000"),
        (["--resample", "bicubic"], "--resample bicubic is how pictures get a --size; give one"),
        (["--size", "64", "-o", "-"], "--size and --gif need a file name"),
    ):
        assert message in run("complete", picture, *arguments, status=1).stderr
    with pytest.raises(OptionError, match="size 0 is too small"):
        resized(Image.new("RGB", (1, 1)), 0)
    with pytest.raises(OptionError, match="resample 'box' is no filter"):
        resized(Image.new("RGB", (1, 1)), 1, "box")
    assert PictureOptions(size=3).by_themselves and not PictureOptions().by_themselves
