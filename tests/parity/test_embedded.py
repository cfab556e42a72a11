"""The graphs that take a picture agree with the references: Pillow, transformers, the host loop, the ONNX evaluator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from complete_request import complete_request
from onnx.reference import ReferenceEvaluator
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from igpt_export.bundle_writer import write_graph
from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.graphs.pictures import preprocess_graph
from igpt_export.precision.precision import Precision
from igpt_runtime import GenerationOptions, open_session
from igpt_runtime.bundle.config import ImageFormat
from igpt_runtime.bundle.graph_io import TensorSpec
from igpt_runtime.engine.generate import generate_all
from igpt_runtime.pictures.palette import image_to_tokens, nearest_clusters, tokens_to_image

SEVEN = Path(__file__).parents[2] / "models" / "digits" / "examples" / "seven.png"
PHOTO = load_sample_image("china.jpg")
RNG = np.random.default_rng(0)

Run = Callable[..., list[np.ndarray]]


def opened(path: Path) -> Run:
    """A function from inputs by name to outputs, as a bare onnxruntime user calls it."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, inputs)


@pytest.fixture(scope="module")
def complete_digits(digits_bundle: Path) -> Run:
    return opened(digits_bundle / "complete.onnx")


@pytest.fixture(scope="module")
def bundles(
    tiny_checkpoint: Path, bundle_of: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A function from precisions and profile to the embedded bundle of the tiny checkpoint."""
    directory = tmp_path_factory.mktemp("embedded")

    def make(weights: str = "fp32", kv_cache: str = "fp32", profile: str = "fused") -> Path:
        if profile == "fused":
            return bundle_of(weights, kv_cache)
        bundle = directory / f"{weights}-{kv_cache}-{profile}"
        if not bundle.exists():
            limit = None if (weights, kv_cache) == ("fp32", "fp32") else float("inf")
            export_bundle(
                load_checkpoint(tiny_checkpoint),
                bundle,
                ExportOptions(Precision(weights, kv_cache), embed=True, profile=profile, max_loss_increase=limit),
            )
        return bundle

    return make


@pytest.fixture(scope="module", params=[(2, False), (3, False), (2, True), (3, True)], ids=str)
def preprocess(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageFormat, bool, Run]:
    """A format of 24x40 pixels in 512 random colours, whether pictures are cut to its shape, and its graph."""
    resample, crop = request.param
    form = ImageFormat(24, 40, RNG.uniform(-1, 1, (512, 3)).astype(np.float32), resample)
    directory = tmp_path_factory.mktemp("preprocess")
    picture = TensorSpec("image", "uint8", ("image_height", "image_width", 3))
    graph = preprocess_graph(([picture], [TensorSpec("tokens", "int64", (960,))]), form, crop=crop)
    write_graph(graph, "preprocess.onnx", directory)
    return form, crop, opened(directory / "preprocess.onnx")


def pillow_tokens(pixels: np.ndarray, form: ImageFormat, crop: bool) -> np.ndarray:
    """Tokens of a picture that Pillow itself resizes, in one call."""
    image = Image.fromarray(pixels)
    box = (0.0, 0.0, float(image.width), float(image.height))
    if crop:
        scale = min(image.width / form.width, image.height / form.height)
        width, height = min(form.width * scale, image.width), min(form.height * scale, image.height)
        left, top = (image.width - width) / 2, (image.height - height) / 2
        box = (left, top, min(left + width, image.width), min(top + height, image.height))
    small = image.resize((form.width, form.height), Image.Resampling(form.resample), box=box)
    return nearest_clusters(np.asarray(small), form.clusters).ravel()


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 300), (300, 1), (24, 40), (23, 41), (48, 80), (427, 640), (640, 200), (90, 40), (101, 77), (7, 500)],
)
def test_preprocess_is_pillow(preprocess: tuple[ImageFormat, bool, Run], height: int, width: int) -> None:
    """Every token, of photographs and of noise, whichever axis is resized first."""
    form, crop, run = preprocess
    photo = np.concatenate([PHOTO] * 2)[:height, :width]
    noise = RNG.integers(0, 256, photo.shape, dtype=np.uint8)
    for pixels in (photo, noise):
        check_tokens(run, pixels, form, crop)


def test_preprocess_of_any_size_is_pillow(preprocess: tuple[ImageFormat, bool, Run]) -> None:
    """Small pictures of many proportions, where it tells which axis comes first and how a part's ends are rounded."""
    form, crop, run = preprocess
    for height, width in RNG.integers(1, 150, (60, 2)):
        check_tokens(run, RNG.integers(0, 256, (height, width, 3), dtype=np.uint8), form, crop)


def check_tokens(run: Run, pixels: np.ndarray, form: ImageFormat, crop: bool) -> None:
    """The graph's tokens and the runtime's are those of Pillow's resizing."""
    expected = pillow_tokens(pixels, form, crop)
    size = (form.height, form.width)
    found = image_to_tokens(Image.fromarray(pixels), form.clusters, *size, crop=crop, resample=form.resample)
    assert np.array_equal(found, expected), pixels.shape
    assert np.array_equal(run(image=pixels)[0], expected), pixels.shape


def test_preprocess_of_digits(digits_bundle: Path) -> None:
    form, run = open_session(digits_bundle).manifest.image_format, opened(digits_bundle / "preprocess.onnx")
    for digit in load_digits().images[:100]:
        pixels = np.repeat((digit * (255 / 16)).astype(np.uint8)[..., None], 3, axis=-1)
        expected = image_to_tokens(Image.fromarray(pixels), form.clusters, form.height, form.width)
        assert np.array_equal(run(image=pixels)[0], expected.ravel())


def test_postprocess_takes_any_number_for_a_token(digits_bundle: Path) -> None:
    form, run = open_session(digits_bundle).manifest.image_format, opened(digits_bundle / "postprocess.onnx")
    tokens = RNG.integers(0, len(form.clusters), (3, 256))
    expected = [np.asarray(tokens_to_image(row, form.clusters, 16, 16)) for row in tokens]
    assert np.array_equal(run(tokens=tokens)[0], expected)
    hostile = tokens.copy()
    hostile[0, :3] = -1, 2**62, -(2**63)
    tokens[0, :3] = 0, len(form.clusters) - 1, 0
    assert np.array_equal(run(tokens=hostile)[0], run(tokens=tokens)[0])


@pytest.mark.parametrize("seed", [*range(17), 2**32, 2**53 + 1, 2**64 - 1])
def test_one_call_draws_what_the_host_loop_draws(complete_digits: Run, digits_bundle: Path, seed: int) -> None:
    session = open_session(digits_bundle)
    form = session.manifest.image_format
    pixels = np.asarray(Image.open(SEVEN).convert("RGB"))
    primer = image_to_tokens(Image.fromarray(pixels), form.clusters, 16, 16).ravel()
    keep_rows, n = (0, 8, 15, 1, 16)[seed % 5], (1, 8, 3, 9)[seed % 4]
    options = {"temperature": (1.0, 0.7, 0.0)[seed % 3], "top_k": (0, 5)[seed % 2], "top_p": (1.0, 0.9)[seed % 2]}
    images, tokens = complete_digits(**complete_request(pixels, keep_rows, n, seed, **options))
    expected = generate_all(session, primer[: keep_rows * 16], GenerationOptions(n=n, seed=seed, **options))
    assert np.array_equal(tokens, expected)
    assert np.array_equal(images[0], np.asarray(tokens_to_image(expected[0], form.clusters, 16, 16)))


@pytest.mark.parametrize(("given", "meant"), [((-3, 0), (0, 1)), ((99, -7), (16, 1)), ((2**62, 2), (16, 2))])
def test_out_of_range(complete_digits: Run, given: tuple[int, int], meant: tuple[int, int]) -> None:
    pixels = np.zeros((5, 5, 3), np.uint8)
    for actual, expected in zip(
        complete_digits(**complete_request(pixels, *given, seed=1)),
        complete_digits(**complete_request(pixels, *meant, seed=1)),
        strict=True,
    ):
        assert np.array_equal(actual, expected)


@pytest.mark.parametrize("graph", ["preprocess", "classify", "score"])
def test_bad_pictures_are_refused(digits_bundle: Path, graph: str) -> None:
    run = opened(digits_bundle / f"{graph}.onnx")
    bad = [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 0, 3), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 3), np.float32),
    ]
    for pixels in bad:
        with pytest.raises(Exception, match="INVALID_ARGUMENT|Unexpected input data type|RUNTIME_EXCEPTION"):
            run(image=pixels)


@pytest.mark.parametrize("graph", ["prefill", "decode", "decode_shared"])
@pytest.mark.parametrize("token", [-300, 257, 2**40])
def test_hostile_tokens_are_refused(digits_bundle: Path, graph: str, token: int) -> None:
    """What is no token is an error of the graph, never read from somewhere else."""
    record = open_session(digits_bundle).manifest.graphs[graph]
    sizes = {"batch": 1, "sequence": 1, "prefix": 2, "capacity": 8}
    inputs = {
        spec.name: np.zeros([sizes[d] if isinstance(d, str) else d for d in spec.shape], spec.dtype)
        for spec in record.inputs
    }
    inputs["input_ids"][:] = token
    if "past_length" in inputs:
        inputs["past_length"][...] = 2
    with pytest.raises(Exception, match="out of data bounds"):
        opened(digits_bundle / record.file)(**inputs)


def test_against_transformers(tiny_checkpoint: Path, bundles: Callable[..., Path]) -> None:
    """Classes (the probe's protocol), features and the score of one photograph."""
    import transformers

    model = transformers.ImageGPTForCausalImageModeling.from_pretrained(tiny_checkpoint)
    bundle = bundles()
    form = open_session(bundle).manifest.image_format
    tokens = torch.from_numpy(image_to_tokens(Image.fromarray(PHOTO), form.clusters, 8, 8)).reshape(1, 64)
    shifted = torch.cat([torch.tensor([[16]]), tokens[:, :-1]], 1)
    with torch.no_grad():
        hidden = model(tokens, output_hidden_states=True).hidden_states
        start = model(shifted, output_hidden_states=True)
    (features,) = opened(bundle / "features.onnx")(image=PHOTO)
    assert np.allclose(features, np.stack([h.mean(1)[0].numpy() for h in hidden]), atol=2e-5)
    nats, mean = opened(bundle / "score.onnx")(image=PHOTO)
    expected = torch.nn.functional.cross_entropy(start.logits[0], tokens[0], reduction="none")
    assert np.allclose(nats.ravel(), expected.numpy(), atol=1e-4) and np.isclose(mean, expected.mean(), atol=1e-4)
    from safetensors.torch import load_file

    tensors = load_file(tiny_checkpoint / "model.safetensors")
    cut = torch.from_numpy(image_to_tokens(Image.fromarray(PHOTO), form.clusters, 8, 8, crop=True)).reshape(1, 64)
    with torch.no_grad():
        states = model(torch.cat([torch.tensor([[16]]), cut[:, :-1]], 1), output_hidden_states=True).hidden_states
        pooled = model.transformer.h[1].ln_1(states[1]).mean(1)
    logits = pooled @ tensors["probe.weight"].t() + tensors["probe.bias"]
    (probabilities,) = opened(bundle / "classify.onnx")(image=PHOTO)
    assert np.allclose(probabilities, torch.softmax(logits, -1)[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("profile", ["fused", "portable"])
def test_evaluator(bundles: Callable[..., Path], profile: str) -> None:
    """ONNX's own evaluator, which has no fused operators, computes the same; portable graphs have none either."""
    bundle = bundles(profile=profile)
    picture = PHOTO[:40, :60]
    for graph in ("preprocess", "classify", "features", "score", "complete"):
        path = bundle / f"{graph}.onnx"
        model = onnx.load_model(path)
        inputs = complete_request(picture, 6, 2, 3) if graph == "complete" else {"image": picture}
        expected = opened(path)(**inputs)
        assert (not model.functions and {o.domain for o in model.opset_import} == {""}) == (
            profile == "portable" or graph == "preprocess"
        )
        for actual, value in zip(ReferenceEvaluator(model).run(None, inputs), expected, strict=True):
            assert actual.dtype == value.dtype and np.allclose(actual, value, atol=1e-4)


@pytest.mark.parametrize(
    ("weights", "kv_cache"),
    [
        ("int8", "int8"),
        pytest.param("fp32", "int8", marks=pytest.mark.slow),
        pytest.param("int8", "fp32", marks=pytest.mark.slow),
    ],
)
def test_rounded_pictures_do_not_depend_on_their_number(
    bundles: Callable[..., Path], weights: str, kv_cache: str
) -> None:
    """In the host loop and in one call, and both draw the same."""
    bundle = bundles(weights, kv_cache)
    session, run = open_session(bundle), opened(bundle / "complete.onnx")
    form = session.manifest.image_format
    primer = image_to_tokens(Image.fromarray(PHOTO), form.clusters, 8, 8).ravel()[:32]
    many = run(**complete_request(PHOTO, 4, 20, 5))[1]
    for n in (1, 2, 7):
        assert np.array_equal(run(**complete_request(PHOTO, 4, n, 5))[1], many[:n])
        assert np.array_equal(generate_all(session, primer, GenerationOptions(n=n, seed=5)), many[:n])


def test_4_bit_weights(bundles: Callable[..., Path]) -> None:
    bundle = bundles("int4", "int8")
    form = open_session(bundle).manifest.image_format
    images, tokens = opened(bundle / "complete.onnx")(**complete_request(PHOTO, 4, 3, 5))
    assert images.shape == (3, 8, 8, 3) and (tokens >= 0).all() and (tokens < len(form.clusters)).all()
    assert (tokens[:, :32] == image_to_tokens(Image.fromarray(PHOTO), form.clusters, 8, 8).ravel()[:32]).all()


def test_weights_are_stored_once(bundles: Callable[..., Path]) -> None:
    """Whatever graphs there are, none holds more than constants of its own."""
    bundle = bundles()
    for path in bundle.glob("*.onnx"):
        model = onnx.load_model(path, load_external_data=False)
        inside = [t for t in model.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
        assert sum(np.prod(t.dims) for t in inside) < 5000, path.name
        assert all(e.value == "weights.safetensors" for t in model.graph.initializer for e in t.external_data[:1])
