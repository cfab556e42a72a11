"""A checkpoint's `generation_config.json`, if it has one, made into the sampling that its bundle starts from.

The file says how its author would draw from the model, not what the model computes. So only what it says itself counts:
an absent `top_k` is off, although transformers then fills in 50 for every model. `do_sample: false` asks for the
likeliest token, which is temperature 0; without `do_sample` the values that are given count. What this project's
sampler does not have (`min_p`, `repetition_penalty`, beams ...) is left out and named, as a bundle of the same model is
still right. A value that no sampler could use is refused: somebody meant something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igpt_export.checkpoint.problems import one_line, read_json, refuse
from igpt_runtime.bundle.config import SamplingDefaults
from igpt_runtime.bundle.fields import MAX_TOP_K

GENERATION_FILE = "generation_config.json"
_GREATEST = 1e300  # of a number that is still one as a float
_REMEDY = "correct the file, or take it away: it only recommends how to sample"
# Fields of transformers' GenerationConfig that change what is drawn, with the values that leave it as it is.
_FOREIGN: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("min_p", "top_h", "penalty_alpha", "bad_words_ids", "suppress_tokens"), (None,)),
    **dict.fromkeys(("begin_suppress_tokens", "sequence_bias", "watermarking_config"), (None,)),
    **dict.fromkeys(("exponential_decay_length_penalty", "forced_bos_token_id"), (None,)),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "no_repeat_ngram_size"), (None, 0)),
    **dict.fromkeys(("typical_p", "repetition_penalty", "guidance_scale", "num_beams"), (None, 1)),
}


@dataclass(frozen=True)
class Recommendation:
    """How a checkpoint's author would draw from it."""

    sampling: SamplingDefaults = SamplingDefaults()
    left_out: tuple[str, ...] = ()  # names of what the file asks for besides, which this project's sampler lacks


def read_recommendation(directory: Path) -> Recommendation:
    """What the `generation_config.json` in a directory recommends; the plain distribution if there is none.

    Raises one CheckpointError that lists every problem, if it is no JSON object or holds impossible values.
    """
    path = directory / GENERATION_FILE
    if not path.exists():
        return Recommendation()
    return recommendation_from_hf(read_json(path), str(path))


def recommendation_from_hf(raw: Mapping[str, Any], where: str) -> Recommendation:
    """A checkpoint's `generation_config.json` as a Recommendation.

    raw: the parsed file; where: its path, for the message. Raises one CheckpointError that lists every problem.
    """
    problems: list[str] = []
    plain = SamplingDefaults()
    temperature, top_p = (_number(raw, key, getattr(plain, key), problems) for key in ("temperature", "top_p"))
    sampling = SamplingDefaults(temperature, _top_k(raw, problems), top_p)
    if not problems and (problem := sampling.problem()):
        problems.append(problem)
    do_sample = raw.get("do_sample")
    if do_sample is not None and not isinstance(do_sample, bool):
        problems.append(f"do_sample is {one_line(repr(do_sample))}, neither true nor false")
    if problems:
        refuse(where, problems, _REMEDY)
    if do_sample is False:
        sampling = SamplingDefaults(temperature=0.0)
    return Recommendation(sampling, tuple(name for name, off in _FOREIGN.items() if raw.get(name) not in off))


def _number(raw: Mapping[str, Any], key: str, default: float, problems: list[str]) -> float:
    value = raw.get(key)
    if value is None:
        return default
    if type(value) not in (int, float) or not abs(value) <= _GREATEST:
        problems.append(f"{key} is {one_line(repr(value))}, not a finite number")
        return default
    return float(value)


def _top_k(raw: Mapping[str, Any], problems: list[str]) -> int:
    value = raw.get("top_k")
    if value is None:
        return SamplingDefaults.top_k
    if type(value) is not int or value > MAX_TOP_K:
        problems.append(f"top_k is {one_line(repr(value))}, not a whole number up to {MAX_TOP_K}")
        return SamplingDefaults.top_k
    return value
