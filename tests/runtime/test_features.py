"""Features and class probabilities against transformers, from picture file to number."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_sample_image

from igpt_runtime.errors import BundleError, ImageError, OptionError
from igpt_runtime.features import classify, features
from igpt_runtime.session import Session, open_session

Write = Callable[..., Path]

PHOTO = Image.fromarray(load_sample_image("china.jpg"))
PICTURES = [
    PHOTO.crop((left, top, left + width, top + height))
    for left, top, width, height in np.random.default_rng(5).integers(8, 200, (19, 4)).tolist()
]


@pytest.fixture(scope="module")
def session(tiny_bundle: Path) -> Session:
    return open_session(tiny_bundle, device="cpu")


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> Callable[[bool], npt.NDArray[np.float32]]:
    """A function that gives transformers' pooled hidden states of PICTURES; True shifts the tokens behind sos."""
    processor = transformers.AutoImageProcessor.from_pretrained(tiny_checkpoint, use_fast=False)
    model = transformers.ImageGPTModel.from_pretrained(tiny_checkpoint).eval()
    tokens = torch.as_tensor(np.array(processor(PICTURES)["input_ids"]))

    @functools.cache
    @torch.no_grad()
    def pooled(shift: bool) -> npt.NDArray[np.float32]:
        start = torch.full((len(tokens), 1), model.config.vocab_size - 1)
        inputs = torch.cat([start, tokens[:, :-1]], dim=1) if shift else tokens
        states = model(input_ids=inputs, output_hidden_states=True).hidden_states
        return torch.stack([state.mean(1) for state in states], dim=1).numpy()

    return pooled


@pytest.mark.parametrize("n", [1, 7, 8, 9, 19])
def test_features_are_the_pooled_hidden_states(
    session: Session, reference: Callable[[bool], npt.NDArray[np.float32]], n: int
) -> None:
    values = features(session, PICTURES[:n])
    assert values.shape == (n, 4, 32) and values.dtype == np.float32
    assert np.abs(values - reference(False)[:n]).max() <= 1e-4
    assert np.ptp(reference(False), axis=0).max() > 0.1  # the pictures do differ


def test_class_probabilities_are_those_of_the_probe(
    session: Session, reference: Callable[[bool], npt.NDArray[np.float32]], tiny_checkpoint: Path
) -> None:
    probe = load_file(tiny_checkpoint / "model.safetensors")
    pooled = torch.from_numpy(reference(True)[:, 1])
    expected = torch.softmax(pooled @ probe["probe.weight"].T + probe["probe.bias"], dim=1).numpy()
    values = classify(session, PICTURES)
    assert values.dtype == np.float32 and np.abs(values - expected).max() <= 1e-5
    assert np.abs(values.sum(axis=1) - 1).max() <= 1e-6
    assert session.manifest.classifier is not None and session.manifest.classifier.labels == ("a", "b", "c")


def test_crop_cuts_instead_of_squashing(session: Session) -> None:
    wide, middle = PHOTO.crop((300, 200, 396, 232)), PHOTO.crop((332, 200, 364, 232))
    for function in (features, classify):
        cut, squashed, expected = (
            function(session, [wide], crop=True),
            function(session, [wide]),
            function(session, [middle]),
        )
        assert np.abs(cut - expected).max() < 0.1 * np.abs(cut - squashed).max()


def test_sources_may_be_mixed(session: Session, picture: Path) -> None:
    with picture.open("rb") as stream:
        values = features(session, [picture, str(picture), picture.read_bytes(), stream, Image.open(picture)])
    assert np.array_equal(values, np.repeat(values[:1], 5, axis=0))


def test_a_bad_picture_is_named(session: Session, picture: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.png': no such file"):
        features(session, [picture, tmp_path / "missing.png"])


def test_no_pictures(session: Session) -> None:
    for function in (features, classify):
        with pytest.raises(OptionError, match="no pictures were given; give at least one"):
            function(session, [])


def test_no_classifier(write_checkpoint: Write, tmp_path: Path, picture: Path) -> None:
    from igpt_export.checkpoint import load_checkpoint
    from igpt_export.export import export_bundle

    bundle = tmp_path / "plain"
    export_bundle(load_checkpoint(write_checkpoint()), bundle)
    session = open_session(bundle, device="cpu")
    assert features(session, [picture]).shape == (1, 3, 16)
    with pytest.raises(BundleError) as caught:
        classify(session, [picture])
    assert str(caught.value) == (
        f"{bundle} has no classifier; export an ImageGPTForImageClassification checkpoint, or one with a probe head"
    )
