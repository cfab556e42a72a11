"""How a bundle is used: the commands and the programs of its model card."""

from igpt_export.card.markup import code, paragraph
from igpt_export.card.onnxruntime_minimum import minimum
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.manifest import Manifest

_COMPLETE = """
from igpt_runtime import GenerationOptions, complete, open_session

session = open_session(".")
result = complete(session, "picture.png", GenerationOptions(n=4, seed=1), keep="top-half")
for number, picture in enumerate(result.images, start=1):
    picture.save(f"completed-{number}.png")
"""
_CLASSIFY = """
from igpt_runtime import classify, open_session

session = open_session(".")
(results,) = classify(session, ["picture.png"])
for label, result in zip(session.manifest.classifier.labels, results):
    print(label, result)
"""
_FEATURES = """
from igpt_runtime import features, open_session

session = open_session(".")
print(features(session, ["picture.png"]).shape)  # pictures, layers, width
"""
_BARE_COMPLETE = """
import numpy as np, onnxruntime
from PIL import Image

request = {{"image": np.asarray(Image.open("picture.png").convert("RGB")), "keep_rows": np.array({keep})}}
request |= {{"n": np.array(4), "seed": np.array(1), "temperature": np.array({temperature}, np.float32)}}
request |= {{"top_k": np.array({top_k}), "top_p": np.array({top_p}, np.float32)}}
session = onnxruntime.InferenceSession("complete.onnx")
for number, picture in enumerate(session.run(["images"], request)[0], start=1):
    Image.fromarray(picture).save(f"completed-{{number}}.png")
"""
_BARE = """
import numpy as np, onnxruntime
from PIL import Image

image = np.asarray(Image.open("picture.png").convert("RGB"))
print(onnxruntime.InferenceSession("{graph}.onnx").run(["{output}"], {{"image": image}})[0])
"""


def draws(manifest: Manifest) -> bool:
    """Whether a bundle can draw pictures."""
    return graph_io.DECODE in manifest.graphs


def usage(manifest: Manifest) -> list[str]:
    """Commands and programs for a bundle, as Markdown; they run in its directory, beside a picture.png."""
    needed = minimum(manifest.profile, manifest.precision, manifest.kv_cache)
    release = "The graphs need a release of ONNX Runtime that is not known"
    if needed.release is not None:
        release = f"The graphs need ONNX Runtime {needed.release} or newer"
    bare = _bare_sample(manifest)
    parts = [
        paragraph(
            "`igpt-run` and `igpt_runtime` come with the Python package igpt-onnx.",
            'It is not on PyPI; install it from its source tree: `pip install ".[cpu]"`.',
            "In what follows `.` is this directory.",
            "After `pip install huggingface_hub` it may also be `OWNER/NAME`, a bundle on the Hugging Face Hub.",
        ),
        code("bash", "\n".join(_commands(manifest))),
        "In Python:",
        code("python", _sample(manifest)),
    ]
    if bare:
        parts += ["With onnxruntime, NumPy and Pillow alone:", code("python", bare)]
    return [*parts, paragraph(f"{release}: {needed.older}.")]


def _commands(manifest: Manifest) -> list[str]:
    commands = ["igpt-run features picture.png --model . -o features.npz"]
    if manifest.classifier is not None:
        commands.insert(0, "igpt-run classify picture.png --model .")
    if draws(manifest):
        commands[:0] = ["igpt-run complete picture.png --model .", "igpt-run sample --model ."]
        commands.append("igpt-run score picture.png --model .")
    return commands


def _sample(manifest: Manifest) -> str:
    """A program that uses igpt_runtime in the bundle's directory, beside a picture.png."""
    if draws(manifest):
        return _COMPLETE
    return _FEATURES if manifest.classifier is None else _CLASSIFY


def _bare_sample(manifest: Manifest) -> str | None:
    """The same without igpt_runtime; None if the bundle has no graph that does all of it."""
    sampling, keep = manifest.sampling, manifest.image_format.height // 2
    if graph_io.COMPLETE in manifest.graphs:
        return _BARE_COMPLETE.format(
            keep=keep, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p
        )
    for graph in (graph_io.CLASSIFY, graph_io.FEATURES):
        if graph in manifest.graphs:
            return _BARE.format(graph=graph, output=manifest.graphs[graph].outputs[0].name)
    return None
