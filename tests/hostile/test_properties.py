"""What holds for every input: of readers of manifests, configurations, PNG files and graphs, and of the palette."""

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile.fuzz.graph_damage import damage_graph
from hostile.fuzz.json_damage import damage_json
from hostile.fuzz.picture_damage import chunks, damage_chunks, joined, pictures
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from igpt_export.checkpoint.config import config_from_hf
from igpt_export.checkpoint.generation import recommendation_from_hf
from igpt_export.checkpoint.preprocessor import image_format_from_hf
from igpt_runtime import read_image
from igpt_runtime.bundle.config import ImageGPTConfig
from igpt_runtime.bundle.directory import is_file_name
from igpt_runtime.bundle.manifest import Manifest, manifest_from_json, manifest_to_json
from igpt_runtime.bundle.subgraph import part_of, with_weights_file
from igpt_runtime.console import harmless
from igpt_runtime.errors import BundleError, CheckpointError, ImageError
from igpt_runtime.pictures.palette import cluster_colours, nearest_clusters, tokens_to_image
from igpt_runtime.pictures.png import ChecksumError, pixels_only

GOLDEN = Path(__file__).parents[1] / "golden/bundle"
MANIFEST = (GOLDEN / "manifest.json").read_bytes()
PREFILL = (GOLDEN / "prefill.onnx").read_bytes()
PNGS = {name: content for name, content in pictures().items() if name.startswith("png")}

settings.register_profile(
    "fixed", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fixed")
seeds = st.integers(0, 2**32).map(random.Random)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def refusal(read: Any, *errors: type[Exception]) -> str | None:
    """The one line with which something is refused; None if it is taken."""
    try:
        read()
    except errors as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 20_000
        return str(error)
    return None


@settings(max_examples=150)
@given(seeds)
def test_a_damaged_manifest_is_read_or_refused(rng: random.Random) -> None:
    text = damage_json(MANIFEST, rng)[0].decode("utf-8", "replace")
    found: list[Manifest] = []
    if refusal(lambda: found.append(manifest_from_json(text, "x")), BundleError) is None:
        again = manifest_to_json(found[0])
        assert "NaN" not in again and "Infinity" not in again
        assert manifest_to_json(manifest_from_json(again, "x")) == again


@settings(max_examples=100)
@given(json_values)
def test_any_json_is_no_manifest(value: Any) -> None:
    assert refusal(lambda: manifest_from_json(json.dumps(value), "x"), BundleError)


@settings(max_examples=100)
@given(st.sampled_from([*json.loads(MANIFEST)]), json_values)
def test_any_value_of_a_manifest(key: str, value: Any) -> None:
    record = {**json.loads(MANIFEST), key: value}
    refusal(lambda: manifest_from_json(json.dumps(record), "x"), BundleError)


FIELDS = [*ImageGPTConfig.__dataclass_fields__, "hidden_size", "pruned_heads", "rope_theta", "id2label", "x"]


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4))
def test_any_value_of_a_configuration(fields: dict[str, Any]) -> None:
    refusal(lambda: config_from_hf({"model_type": "imagegpt", **fields}, "x"), CheckpointError)


@settings(max_examples=150)
@example("clusters", 1e308)
@given(
    st.sampled_from(["size", "clusters", "resample", "rescale_factor", "image_mean", "image_std", "do_rescale"]),
    json_values,
)
def test_any_value_of_a_preprocessor(key: str, value: Any) -> None:
    config = ImageGPTConfig(vocab_size=3, n_positions=4)
    sound = {"clusters": [[0, 0, 0], [1, 1, 1]], "size": {"height": 2, "width": 2}}
    refusal(lambda: image_format_from_hf({**sound, key: value}, config, "x"), CheckpointError)


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(["temperature", "top_k", "top_p", "do_sample", "num_beams"]), json_values))
def test_any_recommendation(raw: dict[str, Any]) -> None:
    refusal(lambda: recommendation_from_hf(raw, "x"), CheckpointError)


@settings(max_examples=200)
@given(st.sampled_from(sorted(PNGS)), seeds)
def test_png_files_of_other_chunks(name: str, rng: random.Random) -> None:
    content = damage_chunks(PNGS[name], rng)[0]
    refusal(lambda: read_image(content), ImageError)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_behind_the_signature(data: bytes) -> None:
    content = b"\x89PNG\r\n\x1a\n" + data
    try:
        kept = pixels_only(content)
    except ChecksumError as error:
        assert "\n" not in str(error)
        return
    assert pixels_only(kept) == kept and len(kept) <= len(content)


@settings(max_examples=60)
@given(st.sampled_from(sorted(PNGS)), st.binary(min_size=4, max_size=4), st.binary(max_size=40), st.integers(0, 9))
def test_a_chunk_that_is_not_needed(name: str, kind: bytes, data: bytes, place: int) -> None:
    """One that no reader has to know changes no pixel."""
    kind = bytes(97 + byte % 26 for byte in kind[:2]) + b"Zz"
    parts = list(chunks(PNGS[name]))
    parts.insert(1 + place % (len(parts) - 1), (kind, data))
    assert (np.asarray(read_image(joined(parts))) == np.asarray(read_image(PNGS[name]))).all()


colours = st.lists(st.tuples(*[st.floats(-1, 1, width=32)] * 3), min_size=1, max_size=20)


@given(colours, st.data())
def test_the_nearest_colour_of_a_colour(clusters: list[tuple[float, float, float]], data: st.DataObject) -> None:
    """A picture of tokens gives tokens of the same colours."""
    array = np.array(clusters, np.float32)
    levels = cluster_colours(array)
    exact = (levels.astype(np.float64) / 127.5 - 1).astype(np.float32)  # of colours that 8 bits hold
    tokens = data.draw(st.lists(st.integers(0, len(clusters) - 1), min_size=6, max_size=6))
    picture = tokens_to_image(tokens, exact, 2, 3)
    found = nearest_clusters(np.asarray(picture), exact).reshape(-1)
    assert (cluster_colours(exact)[found] == cluster_colours(exact)[tokens]).all()


@settings(max_examples=100)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_any_picture_in_png(height: int, width: int, data: st.DataObject) -> None:
    pixels = np.frombuffer(
        data.draw(st.binary(min_size=height * width * 3, max_size=height * width * 3)), np.uint8
    ).reshape(height, width, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert (np.asarray(read_image(buffer.getvalue())) == pixels).all()


@settings(max_examples=60)
@given(seeds)
def test_parts_of_damaged_graphs(rng: random.Random) -> None:
    content = bytearray(damage_graph(PREFILL, rng)[0] if rng.random() < 0.5 else PREFILL)
    if content and rng.random() < 0.7:
        content[rng.randrange(len(content))] = rng.randrange(256)
        del content[rng.randrange(len(content)) :]
    for change in (
        lambda: part_of(bytes(content), ["features"], {"features": [1]}),
        lambda: with_weights_file(bytes(content), "weights.safetensors", "x"),
    ):
        refusal(change, ValueError)


@given(st.text())
def test_names_of_files(name: str) -> None:
    if is_file_name(name):
        assert (Path("a") / name).parent == Path("a") and "\0" not in name


@given(st.text())
def test_a_harmless_text(text: str) -> None:
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in harmless(text))


@pytest.mark.parametrize("name", sorted(PNGS))
def test_chunks_and_back(name: str) -> None:
    assert joined(list(chunks(PNGS[name]))) == PNGS[name]
