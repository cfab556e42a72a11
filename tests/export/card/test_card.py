"""The model card of a bundle: its header, its text with names of any kind, and that what it shows runs."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image

from igpt_export.bundle_writer import sealed
from igpt_export.card.card import model_card
from igpt_export.card.markup import plain, quoted
from igpt_export.card.onnxruntime_minimum import MINIMA, minimum
from igpt_export.checkpoint.about import About
from igpt_export.checkpoint.checkpoint import load_checkpoint
from igpt_export.export import ExportOptions, export_bundle
from igpt_export.probe.bake import bake_probe
from igpt_export.probe.fit import Linear, Probe
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.bundle.config import Classifier, SamplingDefaults
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.session import open_session
from igpt_runtime.tasks.classify import classify

DEMO = Path(__file__).parents[3] / "models" / "demo"
COMMIT = "a" * 40
HOSTILE = [
    "| a | b |", "`code`", "a`b", "**bold** _it_ __x__", "<script>alert(1)</script>", "[link](http://a.b)", "![i](x)",
    "http://example.org", "a\nb\r\n\n# c", "\\|", "back\\slash", "&amp; &#124;", "$$x$$ \\\\(y\\\\)", "---", "- item",
    "1. item", "1) item", "+ plus", "> quote", "# heading #", "~~gone~~", ": [", "{a: b}", "'single' \"double\"",
    "%TAG", "@at", "*", "!!python/object", "null", "true", "0x1F", "é 猫 🐈", "tab\there", "a\u2028b\x85c\x7fd\ud800e",
    "_under_ my_model snake_case_", "=== ", "footnote[^1]", "<!-- x -->", "a | b", "x" * 500, "",
]  # fmt: skip


def read(text: str) -> tuple[dict[str, Any], str]:
    """A card's header and the rest."""
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def rendered(text: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


def letters(html: str) -> str:
    """What a reader sees of HTML without tags in it, spaces left out."""
    assert "<" not in html, html
    for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        html = html.replace(entity, letter)
    return "".join(html.split())


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return open_bundle(tiny_bundle).manifest


@pytest.mark.parametrize("name", HOSTILE)
def test_text_of_unknown_origin_shows_itself(name: str) -> None:
    seen = "".join("".join(c if c.isprintable() else " " for c in name).split())
    seen = seen if len(seen) <= 200 else seen[:200] + "..."
    assert yaml.safe_load(f"key: {quoted(name)}")["key"].replace(" ", "") == seen
    for around in ("word {} word", "{}", "# {}", "| a | b |\n| --- | --- |\n| {} | c |"):
        html = rendered(around.format(plain(name))).strip()
        inner = re.fullmatch(
            r"<p>(?:word)?(.*?)(?:word)?</p>|<h1>(.*)</h1>|<table>.*<tbody>\s*<tr>\s*<td>(.*?)</td>\s*<td>c</td>\s*</tr>"
            r"\s*</tbody>\s*</table>|()", html, re.DOTALL,
        )  # fmt: skip
        assert inner is not None, html
        assert letters(next((group for group in inner.groups() if group is not None), "")) == seen


@pytest.mark.parametrize("name", HOSTILE)
def test_cards_of_hostile_checkpoints(manifest: Manifest, name: str) -> None:
    labels = tuple([name] * 3)
    hostile = replace(
        manifest,
        name=name,
        classifier=Classifier(labels, (1,), "paper"),
        source={"checkpoint": name, "sha256": name},
        tools={name: name},
    )
    text = model_card(hostile, About({"license": name, "license_name": name, "license_link": f"a://{name}"}))
    header, body = read(text)
    assert header["library_name"] == "onnxruntime" and set(header["tags"]) >= {"onnx", "imagegpt"}
    html = rendered(body)
    harmless = replace(hostile, name="x", source={"checkpoint": "x", "sha256": "x"}, tools={"x": "x"})
    reference = rendered(read(model_card(harmless, About({"license": "x"})))[1])
    tags = ("h1", "h2", "table", "tr", "td", "pre", "code", "ul", "ol", "blockquote", "img", "script", "em", "hr", "a")
    for tag in tags:
        assert html.count(f"<{tag}") == reference.count(f"<{tag}"), tag
    assert "http://" not in body and "$" not in body  # what the Hub makes a link or a formula of by itself


def test_header_as_the_hub_wants_it(manifest: Manifest) -> None:
    source = {"checkpoint": f"acme/tiny@{COMMIT}", "sha256": "0" * 64}
    licence = {"license": "other", "license_name": "mine", "license_link": "LICENSE"}
    text = model_card(replace(manifest, source=source), About(licence))
    data = ModelCard(text).data.to_dict()
    assert data == {
        "library_name": "onnxruntime",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["onnx", "imagegpt", "image-completion", "unconditional-image-generation", "image-classification",
                 "image-feature-extraction"],
        "base_model": "acme/tiny",
        "license": "other",
        "license_name": "mine",
        "license_link": "https://huggingface.co/acme/tiny/blob/main/LICENSE",
    }  # fmt: skip
    assert f"[acme/tiny@{COMMIT}](https://huggingface.co/acme/tiny)" in text
    assert "by [its card](https://huggingface.co/acme/tiny): other (mine, LICENSE)." in " ".join(text.split())
    rounded = ModelCard(model_card(replace(manifest, source=source, precision="int4"))).data.to_dict()
    assert rounded["base_model_relation"] == "quantized" and "license" not in rounded
    local = ModelCard(model_card(manifest, About(licence))).data.to_dict()
    assert "base_model" not in local and local["license"] == "other" and "license_link" not in local


@pytest.mark.parametrize(
    ("graphs", "classes", "task"),
    [
        (("prefill", "decode"), True, "unconditional-image-generation"),
        (("prefill", "classify"), True, "image-classification"),
        (("prefill", "features"), False, "image-feature-extraction"),
    ],
)
def test_task(manifest: Manifest, graphs: tuple[str, ...], classes: bool, task: str) -> None:
    part = replace(
        manifest,
        graphs={name: manifest.graphs[name] for name in graphs},
        classifier=manifest.classifier if classes else None,
    )
    text = model_card(part)
    header, body = read(text)
    assert header["pipeline_tag"] == task
    assert ("draws new ones" in body) == ("decode" in graphs) == ("## Sampling" in body)
    assert ("igpt-run classify" in body) == classes


def test_sampling_is_told(manifest: Manifest) -> None:
    plainly = " ".join(model_card(manifest).split())
    assert "recommends no sampling, so tokens are drawn as the model predicts them: temperature 1, top-k off" in plainly
    advised = replace(manifest, sampling=SamplingDefaults(0.8, 40, 0.95))
    text = " ".join(model_card(advised, About(sampling_left_out=("min_p", "num_beams"))).split())
    assert "The checkpoint recommends temperature 0.8, top-k 40, top-p 0.95." in text
    assert "`min_p`, `num_beams`, which this sampler does not have" in text
    assert '"temperature": np.array(0.8, np.float32)' in text and '"top_k": np.array(40)' in text


def test_figures_are_the_manifests(bundle_of: Callable[[str, str], Path]) -> None:
    exact = open_bundle(bundle_of("fp32", "fp32")).manifest
    text = model_card(exact)
    for graph in ("prefill", "decode", "decode_shared"):
        assert f"| `{graph}.onnx` | {exact.verification[f'{graph}_max_abs_diff']:.2g} |" in text
    assert "What the precision costs" not in text
    rounded = open_bundle(bundle_of("int8", "int8")).manifest
    text = model_card(rounded)
    assert rounded.certificate is not None
    loss = rounded.certificate["decode"]["held_out"]
    assert f"| `decode.onnx` | {loss['nats_per_token_fp32']:.4f} | {loss['nats_per_token']:.4f} |" in text
    assert f"{loss['top1_agreement']:.1%}" in text and "handwritten digits" in text
    for name, file in rounded.files.items():
        assert f"| `{name}` | " in text and file.size


def test_random_weights_and_halves_say_so(manifest: Manifest) -> None:
    source = {"checkpoint": "random weights, variant small, seed 0", "sha256": "0" * 64}
    text = " ".join(model_card(replace(manifest, source=source)).split())
    assert "Its weights are random numbers: it draws noise" in text and "come from no checkpoint" in text
    half = " ".join(model_card(replace(manifest, precision="fp16", kv_cache="fp16")).split())
    assert "a release of ONNX Runtime that is not known: fp16 is for the CUDA provider" in half


def test_every_kind_of_bundle_has_its_minimum(manifest: Manifest) -> None:
    kinds = [("fp32", "fp32"), ("fp32", "int8"), ("int8", "fp32"), ("int8", "int8"), ("int4", "fp32"), ("int4", "int8")]
    for profile in ("fused", "portable"):
        for precision, kv_cache in kinds:
            needed = minimum(profile, precision, kv_cache)
            text = model_card(replace(manifest, profile=profile, precision=precision, kv_cache=kv_cache))
            assert f"The graphs need ONNX Runtime {needed.release} or newer: " in " ".join(text.split())
    assert {needed.release for needed in MINIMA.values()} == {"1.25", "1.28"}
    assert minimum("fused", "int8", "int8").release == "1.28" != minimum("portable", "int8", "int8").release


def blocks(card: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card.read_text(), re.DOTALL)


def run(directory: Path, *command: str) -> str:
    path = os.pathsep.join(path for path in sys.path if path)
    settings = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=directory, env=settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def drawn(directory: Path) -> list[bytes]:
    """The pictures that a program of the card leaves, which are taken away."""
    files = sorted(directory.glob("completed-*.png"))
    pictures = []
    for file in files:
        with Image.open(file) as image:
            pictures.append(image.tobytes())
        file.unlink()
    return pictures


@pytest.mark.slow
def test_both_programs_draw_the_same(tiny_checkpoint: Path, tmp_path: Path, picture: Path) -> None:
    """Those of a written card, in the bundle's directory, as it says; also as the checkpoint recommends it."""
    checkpoint = copytree(tiny_checkpoint, tmp_path / "tiny")
    advised = {"do_sample": True, "temperature": 0.6, "top_k": 5, "top_p": 0.9}
    (checkpoint / "generation_config.json").write_text(json.dumps(advised))
    export_bundle(load_checkpoint(checkpoint), tmp_path / "bundle", ExportOptions(embed=True))
    copyfile(picture, tmp_path / "bundle" / "picture.png")
    ours, bare = blocks(tmp_path / "bundle" / "README.md", "python")
    assert "igpt" not in bare
    for program in (ours, bare):
        assert len([line for line in program.splitlines() if line]) <= 10
    run(tmp_path / "bundle", sys.executable, "-c", ours)
    pictures = drawn(tmp_path / "bundle")
    assert len(pictures) == 4 and len(set(pictures)) > 1
    run(tmp_path / "bundle", sys.executable, "-c", bare)
    assert drawn(tmp_path / "bundle") == pictures


def test_the_commands_run(tiny_bundle: Path, tmp_path: Path, picture: Path) -> None:
    bundle = copytree(tiny_bundle, tmp_path / "bundle")
    copyfile(picture, bundle / "picture.png")
    (commands,) = blocks(bundle / "README.md", "bash")
    assert len(commands.splitlines()) == 5
    for line in commands.splitlines():
        program, *arguments = line.split()
        assert program == "igpt-run"
        assert run(bundle, sys.executable, "-m", "igpt_runtime", *arguments)
    assert (bundle / "features.npz").is_file() and (bundle / "samples.png").is_file()


@pytest.mark.parametrize(
    ("model_class", "expected"), [("ImageGPTForImageClassification", "LABEL_0"), ("ImageGPTModel", "(1, 3, 16)")]
)
def test_programs_of_bundles_that_do_not_draw(
    write_checkpoint: Callable[..., Path], model_class: str, expected: str, tmp_path: Path, picture: Path
) -> None:
    checkpoint = load_checkpoint(write_checkpoint(model_class))
    export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(embed=True))
    copyfile(picture, tmp_path / "bundle" / "picture.png")
    ours, bare = blocks(tmp_path / "bundle" / "README.md", "python")
    assert expected in run(tmp_path / "bundle", sys.executable, "-c", ours)
    assert run(tmp_path / "bundle", sys.executable, "-c", bare)
    export_bundle(checkpoint, tmp_path / "without")
    assert len(blocks(tmp_path / "without" / "README.md", "python")) == 1


def test_a_card_is_no_file_of_the_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    assert "README.md" not in open_bundle(tiny_bundle).manifest.files
    copy = copytree(tiny_bundle, tmp_path / "copy")
    assert (copy / "README.md").read_text() == sealed(model_card(open_bundle(copy).manifest))
    (copy / "README.md").write_text("# Mine")
    open_session(copy, device="cpu").graph("decode")
    (copy / "README.md").unlink()
    open_session(copy, device="cpu").graph("decode")


def test_the_demos_card_is_the_exports() -> None:
    embedded, about = open_bundle(), load_checkpoint(DEMO).about
    assert (embedded.path / "README.md").read_text() == sealed(model_card(embedded.manifest, about)), "run `make embed`"


@pytest.mark.slow
def test_linked_and_probed_bundles_have_theirs(tiny_checkpoint: Path, tmp_path: Path, picture: Path) -> None:
    """A probe keeps sampling and licence, and has its own classes."""
    checkpoint = copytree(tiny_checkpoint, tmp_path / "tiny")
    (checkpoint / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Its own card\n")
    (checkpoint / "generation_config.json").write_text('{"temperature": 0.5}')
    export_bundle(load_checkpoint(checkpoint), tmp_path / "linked", ExportOptions(link=True))
    bundle = open_bundle(tmp_path / "linked")
    header, body = read((tmp_path / "linked" / "README.md").read_text())
    assert header["license"] == "cc0-1.0" and "classes | 3: a; b; c |" in body and "temperature 0.5" in body
    weight = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)
    linear = Linear(weight, np.zeros(2, np.float32))
    probe = Probe(("left | right", "`up`"), (2,), "hf", "tiny", bundle.manifest.source["sha256"], linear)
    bake_probe(bundle, probe, tmp_path / "probed")
    header, body = read((tmp_path / "probed" / "README.md").read_text())
    assert header["license"] == "cc0-1.0" and "temperature 0.5" in body
    assert "classes | 2: left &#124; right; &#96;up&#96; |" in body
    assert open_bundle(tmp_path / "probed").manifest.sampling == SamplingDefaults(0.5, 0, 1.0)
    assert classify(open_session(tmp_path / "probed", device="cpu"), [picture]).shape == (1, 2)
