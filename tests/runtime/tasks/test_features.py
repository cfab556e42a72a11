"""Features and class probabilities against transformers, from picture file to number."""

import functools
import io
import threading
from collections import deque
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

from igpt_runtime.engine.session import Session, open_session
from igpt_runtime.errors import BundleError, ImageError, OptionError
from igpt_runtime.pictures.reading import read_image
from igpt_runtime.tasks.classify import classify
from igpt_runtime.tasks.features import feature_batches, features
from igpt_runtime.tasks.score import score

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
def reference(tiny_checkpoint: Path) -> Callable[[str], npt.NDArray[np.float32]]:
    """A function that gives transformers' pooled states of PICTURES by a protocol, [pictures, 4, 32]."""
    processor = transformers.AutoImageProcessor.from_pretrained(tiny_checkpoint, use_fast=False)
    model = transformers.ImageGPTModel.from_pretrained(tiny_checkpoint).eval()

    @functools.cache
    @torch.no_grad()
    def pooled(protocol: str) -> npt.NDArray[np.float32]:
        pictures = PICTURES if protocol == "hf" else [cut_square(picture) for picture in PICTURES]
        inputs = torch.as_tensor(np.array(processor(pictures)["input_ids"]))
        if protocol == "paper":
            start = torch.full((len(inputs), 1), model.config.vocab_size - 1)
            inputs = torch.cat([start, inputs[:, :-1]], dim=1)
        states = list(model(input_ids=inputs, output_hidden_states=True).hidden_states)
        if protocol == "paper":
            # n^l = layer_norm(h^l), section 2.1; f^l is its mean over the sequence, section 2.3.
            for layer, block in enumerate(model.h):
                variance = states[layer].square().mean(-1, keepdim=True)
                states[layer] = (
                    block.ln_1.weight * states[layer] / torch.sqrt(variance + model.config.layer_norm_epsilon)
                )
        return torch.stack([state.mean(1) for state in states], dim=1).numpy()

    return pooled


def cut_square(picture: Image.Image) -> Image.Image:
    """The short side resized to 8 pixels, the centre of the long one kept."""
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return picture.resize((8, 8), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


@pytest.mark.parametrize("n", [1, 7, 8, 9, 19])
@pytest.mark.parametrize("protocol", ["hf", "paper"])
def test_features_are_the_pooled_states(
    session: Session, reference: Callable[[str], npt.NDArray[np.float32]], protocol: str, n: int
) -> None:
    values = features(session, PICTURES[:n], protocol=protocol)
    assert values.shape == (n, 4, 32) and values.dtype == np.float32
    assert np.abs(values - reference(protocol)[:n]).max() <= 1e-4
    assert np.ptp(reference(protocol), axis=0).max() > 0.1  # the pictures do differ


@pytest.mark.parametrize("layers", [[2], [3, 0], [0], [1, 1]])
@pytest.mark.parametrize("protocol", ["hf", "paper"])
def test_layers_come_in_the_order_asked_for(session: Session, protocol: str, layers: list[int]) -> None:
    every = features(session, PICTURES[:3], protocol=protocol)
    assert np.abs(features(session, PICTURES[:3], protocol=protocol, layers=layers) - every[:, layers]).max() <= 1e-6


def test_class_probabilities_are_those_of_the_probe(
    session: Session, reference: Callable[[str], npt.NDArray[np.float32]], tiny_checkpoint: Path
) -> None:
    probe = load_file(tiny_checkpoint / "model.safetensors")
    pooled = torch.from_numpy(reference("paper")[:, 1])
    expected = torch.softmax(pooled @ probe["probe.weight"].T + probe["probe.bias"], dim=1).numpy()
    values = classify(session, PICTURES)
    assert values.dtype == np.float32 and np.abs(values - expected).max() <= 1e-5
    assert np.abs(values.sum(axis=1) - 1).max() <= 1e-6
    assert session.manifest.classifier is not None and session.manifest.classifier.labels == ("a", "b", "c")


def test_crop_cuts_instead_of_squashing(session: Session) -> None:
    wide, middle = PHOTO.crop((300, 200, 396, 232)), PHOTO.crop((332, 200, 364, 232))
    cut, squashed, expected = (
        features(session, [wide], crop=True),
        features(session, [wide]),
        features(session, [middle]),
    )
    assert np.abs(cut - expected).max() < 0.1 * np.abs(cut - squashed).max()
    for protocol in ("paper", "hf"):
        once, twice = (features(session, [wide], protocol=protocol, crop=crop) for crop in (False, True))
        assert np.array_equal(once, twice) == (protocol == "paper")


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
    from igpt_export.checkpoint.checkpoint import load_checkpoint
    from igpt_export.export import export_bundle

    bundle = tmp_path / "plain"
    export_bundle(load_checkpoint(write_checkpoint()), bundle)
    session = open_session(bundle, device="cpu")
    assert features(session, [picture]).shape == (1, 3, 16)
    with pytest.raises(BundleError) as caught:
        classify(session, [picture])
    assert str(caught.value) == (
        f"{bundle} has no classifier; fit one with `igpt-run probe fit` and add it with `igpt-run probe export`, or "
        "export an ImageGPTForImageClassification checkpoint"
    )


def test_a_single_picture_needs_no_list(tiny_bundle: Path, picture: Path) -> None:
    session = open_session(tiny_bundle, device="cpu")
    image = read_image(picture)
    for one in (picture, str(picture), picture.read_bytes(), image):
        assert np.array_equal(features(session, one), features(session, [one]))
        assert np.array_equal(classify(session, one), classify(session, [one]))
        assert len(list(score(session, one))) == 1


def test_pictures_are_read_ahead_for_a_gpu(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The features, their order and what is said of broken pictures are the same."""
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no picture")
    paths = []
    for i, picture in enumerate(PICTURES):
        paths.append(tmp_path / f"{i}.png")
        picture.save(paths[-1])
    given = [paths[0], PICTURES[1], io.BytesIO(paths[2].read_bytes()), damaged, paths[3].read_bytes(), *paths[4:]]
    expected = features(session, PICTURES)
    monkeypatch.setattr("igpt_runtime.tasks.features.is_on_cuda", lambda _: True)
    for batch in (1, 4, 32):
        monkeypatch.setattr("igpt_runtime.tasks.features._GPU_BATCH", batch)
        said: list[str] = []
        batches = list(feature_batches(session, deque(given), broken=said.append))
        assert [i for indices, _ in batches for i in indices] == [0, 1, 2, *range(4, 20)]
        assert np.allclose(np.concatenate([values for _, values in batches]), expected, atol=1e-5)
        assert len(said) == 1 and str(damaged) in said[0]
        given[2].seek(0)  # type: ignore[union-attr]
        with pytest.raises(ImageError, match="damaged.png"):
            features(session, given)
        given[2].seek(0)  # type: ignore[union-attr]
    some = feature_batches(session, paths)
    next(some)
    some.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool") and _alive(thread)]


def _alive(thread: threading.Thread) -> bool:
    thread.join(10)
    return thread.is_alive()
