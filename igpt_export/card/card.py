"""The model card of a bundle: what it is and how to use it, for people and for the Hugging Face Hub.

`README.md` in the bundle's directory. The manifest does not describe it, so it can be edited.
"""

import re
from collections.abc import Mapping
from typing import Any

from igpt_export.card.markup import header, paragraph, plain, table
from igpt_export.card.usage import draws, usage
from igpt_export.checkpoint.about import About
from igpt_export.examples import EXAMPLES_FILE
from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.config import SamplingDefaults
from igpt_runtime.bundle.directory import MANIFEST_FILE, WEIGHTS_FILE
from igpt_runtime.bundle.hub import parse_hub_id
from igpt_runtime.bundle.manifest import Manifest

_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_SHOWN_LABELS = 20  # before the rest becomes a count
_FILES = {
    MANIFEST_FILE: "what the bundle is: its sizes and colours, what every graph takes and gives, hashes of all files",
    WEIGHTS_FILE: "the weights, which all graphs share",
    f"{graph_io.PREFILL}.onnx": "a whole sequence at once: logits, hidden states, features",
    f"{graph_io.DECODE}.onnx": "the next token of each sequence",
    f"{graph_io.DECODE_SHARED}.onnx": "the same, for sequences that begin alike",
    f"{graph_io.PREPROCESS}.onnx": "from a picture to its tokens",
    f"{graph_io.POSTPROCESS}.onnx": "from tokens to pictures",
    f"{graph_io.COMPLETE}.onnx": "from a picture to its completions, in one call",
    f"{graph_io.CLASSIFY}.onnx": "from a picture to the probability of each class, in one call",
    f"{graph_io.FEATURES}.onnx": "from a picture to its features of every layer, in one call",
    f"{graph_io.SCORE}.onnx": "from a picture to the surprise of each of its pixels, in one call",
    EXAMPLES_FILE: "pictures to try the model with, in rows of eight",
}
_PRECISIONS = {
    "fp32": "32-bit floats",
    "int8": "8-bit integers in the blocks' matrices, the rest in 32-bit floats",
    "int4": "4-bit integers in the blocks' matrices, the rest in 32-bit floats",
    "fp16": "16-bit floats, meant for GPUs",
}
_ROUNDED = (
    "ONNX Runtime also rounds what flows between the layers, and PyTorch does not. So single values may be far off. "
    "The relative error is the root mean square of the differences, divided by that of PyTorch's values. What that "
    "costs on the whole is in the second table."
)
_PROFILES = {
    "fused": "ONNX, with operators of ONNX Runtime and, for other runtimes, a definition of each in standard ones",
    "portable": "ONNX, with standard operators only",
}


def model_card(manifest: Manifest, about: About | None = None) -> str:
    """The text of a bundle's README.md.

    about: what the checkpoint says of its licence and of a sampling that this project lacks; nothing if None.
    """
    about = about or About()
    parts = [
        header(_metadata(manifest, about)),
        f"# {plain(manifest.name)} ({manifest.precision})",
        _introduction(manifest),
        table(("", ""), _facts(manifest)),
        "## Files",
        table(("file", "size", "what it is"), _files(manifest)),
        "## Precision",
        *_precision(manifest),
        *(["## Sampling", _sampling(manifest.sampling, about)] if draws(manifest) else []),
        "## Use",
        *usage(manifest),
        "## Licence",
        _licence(manifest, about),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(manifest: Manifest) -> str | None:
    """Id of the checkpoint on the Hub, if that is where it was taken from."""
    hub = parse_hub_id(manifest.source["checkpoint"] or "")
    return hub[0] if hub is not None and _COMMIT.fullmatch(hub[1] or "") else None


def _is_random(manifest: Manifest) -> bool:
    return (manifest.source["checkpoint"] or "").startswith("random weights, variant ")


def _metadata(manifest: Manifest, about: About) -> dict[str, str | list[str]]:
    """The header's fields, as https://huggingface.co/docs/hub/model-cards has them."""
    tags = ["onnx", "imagegpt"]
    if draws(manifest):
        tags += ["image-completion", "unconditional-image-generation"]
    if manifest.classifier is not None:
        tags.append("image-classification")
    tags.append("image-feature-extraction")
    task = next(tag for tag in tags if tag.startswith(("unconditional", "image-classification", "image-feature")))
    fields: dict[str, str | list[str]] = {"library_name": "onnxruntime", "pipeline_tag": task, "tags": tags}
    origin = _origin(manifest)
    if origin is not None:
        fields["base_model"] = origin
        if manifest.precision in ("int8", "int4"):
            fields["base_model_relation"] = "quantized"
    licence = dict(about.license)
    link = licence.get("license_link")
    if isinstance(link, str) and "://" not in link:  # a file beside the checkpoint, which is not here
        del licence["license_link"]
        if origin is not None:
            licence["license_link"] = f"https://huggingface.co/{origin}/blob/main/{link}"
    return fields | licence


def _introduction(manifest: Manifest) -> str:
    abilities = ["turns pictures into features"]
    if manifest.classifier is not None:
        abilities.insert(0, "says what a picture shows")
    if draws(manifest):
        abilities = ["completes pictures", "draws new ones", "tells how likely a picture is", *abilities]
    listed = abilities[0] if len(abilities) == 1 else f"{', '.join(abilities[:-1])} and {abilities[-1]}"
    return paragraph(
        "An ImageGPT, exported to ONNX.",
        "ImageGPT predicts a picture pixel by pixel, as GPT-2 predicts a text word by word.",
        f"This model {listed}.",
        "This directory, a bundle, holds all that it takes: graphs for ONNX Runtime, one file with the weights, and a "
        "manifest that describes them.",
        *(
            ["Its weights are random numbers: it draws noise, and is there to be timed."]
            if _is_random(manifest)
            else []
        ),
    )


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    config, form, classifier = manifest.config, manifest.image_format, manifest.classifier
    origin, digest = _origin(manifest), manifest.source["sha256"] or ""
    source = plain(manifest.source["checkpoint"] or "unknown")
    if origin is not None:
        source = f"[{source}](https://huggingface.co/{origin})"
    facts = [
        ("pictures", f"{form.width}x{form.height} pixels, each a token: one of {config.n_clusters} colours"),
        ("model", f"{config.n_layer} layers, width {config.n_embd}, {config.n_head} heads"),
        ("graphs", _PROFILES[manifest.profile]),
        ("checkpoint", f"{source}, SHA-256 of the weights `{digest}`" if _SHA256.fullmatch(digest) else source),
        ("made with", ", ".join(f"{plain(name)} {plain(version)}" for name, version in manifest.tools.items())),
    ]
    if classifier is not None:
        shown = "; ".join(map(plain, classifier.labels[:_SHOWN_LABELS]))
        rest = len(classifier.labels) - _SHOWN_LABELS
        more = f"; and {rest} more" if rest > 0 else ""
        facts.insert(2, ("classes", f"{len(classifier.labels)}: {shown}{more}"))
    return facts


def _files(manifest: Manifest) -> list[tuple[str, str, str]]:
    rows = [(f"`{MANIFEST_FILE}`", "", _FILES[MANIFEST_FILE])]
    for name in sorted(manifest.files, key=lambda name: list(_FILES).index(name) if name in _FILES else len(_FILES)):
        shown = f"`{name}`" if name in _FILES else plain(name)
        rows.append((shown, _size(manifest.files[name].size), _FILES.get(name, "")))
    return rows


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _precision(manifest: Manifest) -> list[str]:
    """What the numbers are, how well the graphs agree with PyTorch, and what the precision costs."""
    verification, exact = manifest.verification, manifest.certificate is None
    figure = "max_abs_diff" if exact else "relative_error"
    found = [(graph, verification.get(f"{graph}_{figure}")) for graph in manifest.graphs]
    rows = [(f"`{graph}.onnx`", f"{difference:.2g}") for graph, difference in found if difference is not None]
    parts = [
        paragraph(
            f"Weights: {_PRECISIONS[manifest.precision]}.",
            f"Cache of keys and values: {manifest.kv_cache}.",
            "Before the bundle was written, its graphs ran in ONNX Runtime and its weights in PyTorch, on the same "
            f"{verification['sequence']:.0f} tokens.",
            *(["The largest differences of their outputs:"] if exact else [_ROUNDED]),
        ),
        table(("graph", "largest difference" if exact else "relative error"), rows),
    ]
    if manifest.certificate is None:
        return parts
    return [*parts, *_certificate(manifest.certificate)]


def _certificate(certificate: Mapping[str, Any]) -> list[str]:
    losses = [
        (
            f"`{graph}.onnx`", f"{loss['nats_per_token_fp32']:.4f}", f"{loss['nats_per_token']:.4f}",
            f"{loss['increase']:+.4f}", f"{loss['kl_divergence']:.2g}", f"{loss['top1_agreement']:.1%}",
        )
        for graph in ("prefill", "decode")
        if certificate[graph] is not None
        for loss in [certificate[graph]["held_out"]]
    ]  # fmt: skip
    shift = certificate["features"]["held_out"]
    sentences = [f"Features differ by {shift['features_error']:.2g} of their size in the worst layer."]
    if shift["kl_divergence"] is not None:
        sentences.append(
            f"The likeliest class is the same for {shift['top1_agreement']:.1%} of the pictures (divergence "
            f"{shift['kl_divergence']:.2g} nats)."
        )
    pictures = f"{shift['pictures']} pictures that did not set the scales (of {plain(certificate['pictures'])})"
    parts = [
        paragraph(
            f"What the precision costs, against 32-bit floats, on {pictures}.",
            "Nats per token measure how badly the pixels are predicted: less is better." if losses else "",
        )
    ]
    if losses:
        columns = ("graph", "nats per token, fp32", "here", "difference", "divergence (KL)", "same likeliest token")
        parts.append(table(columns, losses))
    return [*parts, paragraph(*sentences)]


def _sampling(sampling: SamplingDefaults, about: About) -> str:
    values = (
        f"temperature {sampling.temperature:g}, top-k {sampling.top_k or 'off'}, "
        f"top-p {'off' if sampling.top_p == 1 else f'{sampling.top_p:g}'}"
    )
    if sampling.is_plain:
        sentences = ["The checkpoint recommends no sampling, so tokens are drawn as the model predicts them:"]
        sentences.append(f"{values}.")
    else:
        sentences = [f"The checkpoint recommends {values}.", "What is below draws like that unless told otherwise;"]
        sentences.append("`--temperature 1 --top-k 0 --top-p 1` draws as the model predicts.")
    if about.sampling_left_out:
        listed = ", ".join(f"`{name}`" for name in about.sampling_left_out)
        sentences.append(f"It also asks for {listed}, which this sampler does not have and leaves out.")
    return paragraph(*sentences)


def _licence(manifest: Manifest, about: About) -> str:
    if _is_random(manifest):
        return "The weights are random numbers and come from no checkpoint."
    origin = _origin(manifest)
    card = "its card" if origin is None else f"[its card](https://huggingface.co/{origin})"
    stated = about.license.get("license")
    if not stated:
        return paragraph(f"The licence is that of the checkpoint. The header of {card} does not say which.")
    listed = ", ".join(map(plain, [stated] if isinstance(stated, str) else stated))
    called, link = (about.license.get(f"license_{field}") for field in ("name", "link"))
    details = ", ".join(plain(detail) for detail in (called, link) if detail)
    return paragraph(f"The licence is that of the checkpoint, by {card}: {listed}{f' ({details})' if details else ''}.")
