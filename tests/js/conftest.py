"""The page with some bundles, in a browser."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest
from js.browser import EXAMPLES, SAMPLES, Page, browsing, serving
from PIL import Image

from igpt_runtime import Session, open_session


def with_samples(bundle: Path, path: Path) -> Path:
    """A copy of a bundle that brings these sample pictures, and recommends a top-p."""
    copytree(bundle, path)
    sheet = Image.new("RGB", (8 * 16, 16))
    for i, name in enumerate(SAMPLES):
        picture = Image.open(EXAMPLES / f"{name}.png").convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        sheet.paste(picture, (16 * i, 0))
    sheet.save(path / "examples.png")
    content = (path / "examples.png").read_bytes()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["examples"] = {"file": "examples.png", "names": SAMPLES}
    manifest["files"]["examples.png"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    # As if the model's own pictures were certain in their first rows, and anything was usual of more.
    by_rows = [[0, 0, 0]] * 4 + [[0, 100, 200]] * 12
    manifest["sampling"]["top_p"] = 0.95
    manifest["likelihood"] = {"pictures": "none", "by_rows": by_rows}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture(scope="module")
def samples(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_samples(digits_bundle, tmp_path_factory.mktemp("samples") / "digits")


@pytest.fixture(scope="module")
def session(samples: Path) -> Session:
    return open_session(samples, device="cpu")


@pytest.fixture(scope="module")
def address(digits_bundle: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the page with the model of digits and samples, a damaged copy, and one without samples in the Hub's cache."""
    directory = tmp_path_factory.mktemp("bundles")
    damaged = copytree(digits_bundle, directory / "damaged")
    weights = bytearray((damaged / "weights.safetensors").read_bytes())
    weights[-5] ^= 1
    (damaged / "weights.safetensors").write_bytes(weights)
    blobs, snapshot = (
        directory / "models--acme--digits" / "blobs",
        directory / "models--acme--digits" / "snapshots" / "0123",
    )
    copytree(digits_bundle, blobs)
    manifest = json.loads((blobs / "manifest.json").read_text())
    (blobs / "manifest.json").write_text(json.dumps({**manifest, "examples": None}))
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    with serving("--model", samples, "--model", damaged, "--model", snapshot) as address:
        yield address


@pytest.fixture
def page(request: pytest.FixtureRequest, address: str, tmp_path: Path) -> Iterator[Page]:
    """Indirectly parametrized by further flags of Chromium."""
    with browsing(address, tmp_path / "downloads", *getattr(request, "param", ("--disable-gpu",))) as result:
        result.wait_for("Ready")
        yield result
        assert [entry for entry in result.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
