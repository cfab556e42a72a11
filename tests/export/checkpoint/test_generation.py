"""What a checkpoint's generation_config.json recommends, and what the header of its card says of its licence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from igpt_export.checkpoint.checkpoint import load_checkpoint, random_checkpoint
from igpt_export.checkpoint.generation import recommendation_from_hf
from igpt_export.export import export_bundle
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.bundle.config import SamplingDefaults
from igpt_runtime.errors import CheckpointError

Write = Callable[..., Path]
DIGITS = Path(__file__).parents[3] / "models" / "digits"
PLAIN = SamplingDefaults(1.0, 0, 1.0)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, PLAIN),
        ({"_from_model_config": True, "transformers_version": "5.23.0", "use_cache": True}, PLAIN),
        ({"temperature": None, "top_k": None, "top_p": None, "do_sample": None}, PLAIN),
        ({"do_sample": True}, PLAIN),  # transformers would fill in top_k 50, which nobody wrote
        ({"do_sample": True, "temperature": 0.7}, SamplingDefaults(0.7, 0, 1.0)),
        ({"temperature": 2, "top_k": 40, "top_p": 1}, SamplingDefaults(2.0, 40, 1.0)),
        ({"top_p": 0.9}, SamplingDefaults(1.0, 0, 0.9)),
        ({"temperature": 0.0}, SamplingDefaults(0.0, 0, 1.0)),
        ({"do_sample": False}, SamplingDefaults(0.0, 0, 1.0)),
        ({"do_sample": False, "temperature": 0.7, "top_k": 50}, SamplingDefaults(0.0, 0, 1.0)),
    ],
)
def test_what_is_recommended(raw: dict[str, Any], expected: SamplingDefaults) -> None:
    assert recommendation_from_hf(raw, "file").sampling == expected


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"temperature": "hot"}, "temperature is 'hot', not a finite number"),
        ({"temperature": True}, "temperature is True, not a finite number"),
        ({"temperature": float("nan")}, "temperature is nan, not a finite number"),
        ({"temperature": float("inf")}, "temperature is inf, not a finite number"),
        ({"temperature": 10**400}, "not a finite number"),
        ({"temperature": -0.5}, "temperature must be a finite number of at least 0, got -0.5"),
        ({"top_k": 2.5}, "top_k is 2.5, not a whole number"),
        ({"top_k": -1}, "top-k must be at least 0 (0 is off), got -1"),
        ({"top_k": 2**60}, "top_k is 1152921504606846976, not a whole number up to 9007199254740991"),
        ({"top_p": [0.9]}, "top_p is [0.9], not a finite number"),
        ({"top_p": 1.5}, "top-p must be above 0 and at most 1 (1 is off), got 1.5"),
        ({"top_p": 0}, "top-p must be above 0"),
        ({"do_sample": "yes"}, "do_sample is 'yes', neither true nor false"),
        ({"temperature": "a\nb"}, "temperature is 'a\\nb', not a finite number"),
    ],
)
def test_impossible_values(raw: dict[str, Any], problem: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        recommendation_from_hf(raw, "file")
    message = str(caught.value)
    assert message.startswith("file: ") and problem in message and "\n" not in message
    assert message.endswith(" - correct the file, or take it away: it only recommends how to sample")


def test_every_problem_is_told() -> None:
    with pytest.raises(CheckpointError, match="temperature is 'x'.*; top_p is 'y'.*; top_k is 'z'.*; do_sample is 0"):
        recommendation_from_hf({"temperature": "x", "top_p": "y", "top_k": "z", "do_sample": 0}, "file")


def test_what_the_sampler_lacks_is_named() -> None:
    off = {"min_p": None, "typical_p": 1.0, "repetition_penalty": 1, "num_beams": 1, "eta_cutoff": 0.0, "max_length": 9}
    assert recommendation_from_hf(off, "file").left_out == ()
    found = recommendation_from_hf({"repetition_penalty": 1.2, "min_p": 0.05, "bad_words_ids": [[3]]}, "file")
    assert found.sampling == PLAIN and set(found.left_out) == {"repetition_penalty", "min_p", "bad_words_ids"}


def test_checkpoint_and_bundle_have_it(write_checkpoint: Write, tmp_path: Path) -> None:
    directory = write_checkpoint()
    config = transformers.GenerationConfig(do_sample=True, temperature=0.8, top_k=0, top_p=0.95, min_p=0.1)
    config.save_pretrained(directory)
    checkpoint = load_checkpoint(directory)
    assert checkpoint.sampling == SamplingDefaults(0.8, 0, 0.95) and checkpoint.about.sampling_left_out == ("min_p",)
    export_bundle(checkpoint, tmp_path / "bundle")
    assert open_bundle(tmp_path / "bundle").manifest.sampling == checkpoint.sampling
    (directory / "generation_config.json").unlink()
    assert load_checkpoint(directory).sampling == PLAIN == random_checkpoint("small", 0).sampling


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("{", "not valid JSON"),
        ("[]", "holds a JSON list, not an object"),
        ('{"top_p": NaN}', "top_p is nan"),
    ],
)
def test_damaged_file(write_checkpoint: Write, text: str, expected: str) -> None:
    directory = write_checkpoint()
    (directory / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(directory)
    message = str(caught.value)
    assert message.startswith(f"{directory / 'generation_config.json'}: ") and expected in message
    assert "\n" not in message


def test_that_of_digits_is_what_transformers_would_do() -> None:
    config = transformers.GenerationConfig.from_pretrained(DIGITS)
    assert (config.do_sample, config.temperature, config.top_k, config.top_p) == (True, 0.8, 0, 1.0)
    assert load_checkpoint(DIGITS).sampling == SamplingDefaults(0.8, 0, 1.0)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# Model\n", {"license": "apache-2.0"}),
        ("---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n",
         {"license": "other", "license_name": "mine", "license_link": "LICENSE"}),
        ("---\nlicense: [mit, cc0-1.0]\n---\n", {"license": ["mit", "cc0-1.0"]}),
        ("---\nlicense: 7\nlicense_name: {a: b}\n---\n", {}),
        ("---\ntags: [a]\n---\n", {}),
        ("# Model\nlicense: mit\n", {}),
        ("---\n: [\n---\n", {}),
        ("---\n- list\n---\n", {}),
        ("---\nlicense: !!python/object/apply:os.system [false]\n---\n", {}),
        (b"\xff\xfe---\nlicense: mit\n---\n", {}),
        (None, {}),
    ],
)  # fmt: skip
def test_licence_of_the_checkpoints_card(write_checkpoint: Write, card: str | bytes | None, expected: object) -> None:
    directory = write_checkpoint()
    if card is not None:
        (directory / "README.md").write_bytes(card.encode() if isinstance(card, str) else card)
    assert load_checkpoint(directory).about.license == expected


def test_a_directory_called_readme(write_checkpoint: Write) -> None:
    directory = write_checkpoint()
    (directory / "README.md").mkdir()
    assert json.dumps(load_checkpoint(directory).about.license) == "{}"
