"""The demo model: what is embedded is what the checkpoint exports to, and it does what its card says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igpt_export.checkpoint import load_checkpoint
from igpt_export.export import export_bundle
from igpt_runtime import GenerationOptions, classify, complete, generate_all, open_bundle, open_session, tokens_of
from igpt_runtime.palette import read_image

DEMO = Path(__file__).parent.parent / "models" / "demo"
EXAMPLES = sorted((DEMO / "examples").glob("*.png"))
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_embedded_bundle_is_the_exported_checkpoint(tmp_path: Path) -> None:
    fresh = export_bundle(load_checkpoint(DEMO), tmp_path / "demo-fp32")
    embedded = open_bundle().manifest
    assert embedded.files == fresh.files, "run `make embed` and commit the bundle"
    assert embedded.source["sha256"] == fresh.source["sha256"]


def test_embedded_bundle_is_small() -> None:
    assert sum(file.size for file in open_bundle().manifest.files.values()) < 8e6


def test_examples_are_classified() -> None:
    labels = open_session().manifest.classifier
    assert labels is not None and len(EXAMPLES) >= 6
    predicted = [labels.labels[row.argmax()] for row in classify(open_session(), EXAMPLES)]
    expected = [WORDS.index(path.stem) for path in EXAMPLES]
    right = sum(label in (str(digit), WORDS[digit]) for label, digit in zip(predicted, expected, strict=True))
    assert right >= len(EXAMPLES) - 1


def test_greedy_completion_is_token_identical(transformers_greedy: Callable[[Path, np.ndarray], np.ndarray]) -> None:
    session = open_session(device="cpu")
    primer = tokens_of(session, read_image(EXAMPLES[0]))[:128]
    ours = generate_all(session, primer, GenerationOptions(n=2, temperature=0.0))
    assert (ours == transformers_greedy(DEMO, primer)).all()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_completions_keep_the_given_half_and_the_ink(path: Path) -> None:
    session = open_session(device="cpu")
    result = complete(session, path, GenerationOptions(n=4, seed=1))
    assert result.original is not None
    given = np.asarray(result.images[0], np.int16)[:8]
    assert np.abs(given - np.asarray(result.original, np.int16)[:8]).mean() < 8  # colours are quantised
    assert all((np.asarray(image)[:8] == given).all() for image in result.images)
    assert len({image.tobytes() for image in result.images}) > 1
    # Ink and paper of the completed part are those of the given part: few pixels are of any other hue.
    drawn = np.concatenate([np.asarray(image)[8:].reshape(-1, 3) for image in result.images]).astype(int)
    palette = np.unique(given.reshape(-1, 3), axis=0).astype(int)
    distance = np.abs(drawn[:, None] - palette[None]).sum(-1).min(1)
    assert (distance > 120).mean() < 0.05


def test_card_quotes_the_metrics() -> None:
    metrics = json.loads((DEMO / "metrics.json").read_text())
    card = (DEMO / "README.md").read_text()
    numbers = [v for v in flatten(metrics) if isinstance(v, float)]
    quoted = sum(any(f"{v:.{d}f}" in card or f"{100 * v:.{d}f}" in card for d in (1, 2, 3, 4)) for v in numbers)
    assert quoted >= 10


def flatten(record: object) -> list[object]:
    if isinstance(record, dict):
        return [leaf for value in record.values() for leaf in flatten(value)]
    return [leaf for value in record for leaf in flatten(value)] if isinstance(record, list) else [record]


def test_pictures_are_pictures() -> None:
    for path in [*EXAMPLES, *DEMO.glob("*.png")]:
        with Image.open(path) as image:
            assert image.convert("RGB").getcolors(maxcolors=1 << 24), path
