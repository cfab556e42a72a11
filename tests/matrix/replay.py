"""Replays the golden pack graph by graph, through any function that opens the graphs of a bundle."""

import base64
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from complete_request import complete_request
from report import LARGE_SEEDS

from igpt_runtime.bundle import graph_io
from igpt_runtime.bundle.manifest import Manifest
from igpt_runtime.engine.kv_cache import Cache, new_cache, share_prefix

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "cases.json").read_text())
PICTURES = {case["name"]: case for case in CASES["pictures"]}
TEACHER = [case["tokens"] for case in CASES["model"]]
SHARED = 16  # tokens of the prefix of decode_shared, sos included
Arrays = dict[str, np.ndarray]
Run = Callable[[Mapping[str, Any]], Arrays]  # inputs by name to outputs by name
Results = dict[str, Arrays | str]  # by graph: outputs, or why there are none


def replay(manifest: Manifest, open_graph: Callable[[str], Run], prefix: list[np.ndarray]) -> Results:
    """What every graph of the golden bundle, or of one like it, makes of the pack.

    prefix: slots of the first 16 tokens of the first teacher-forced picture, as prefill returns them.
    """
    tasks: dict[str, Callable[[Run], Arrays]] = {
        graph_io.PREFILL: lambda run: {"logits": run({graph_io.INPUT_IDS: _fed(TEACHER)})["logits"]},
        graph_io.DECODE: lambda run: _forced(run, new_cache(manifest, len(TEACHER)), TEACHER, 0),
        graph_io.DECODE_SHARED: lambda run: _forced(run, share_prefix(manifest, 2, prefix), TEACHER[:1] * 2, SHARED),
        graph_io.PREPROCESS: lambda run: _stacked([run({"image": _pixels(name)}) for name in PICTURES]),
        graph_io.POSTPROCESS: lambda run: run({"tokens": _ints([case["tokens"] for case in CASES["images"]])}),
        graph_io.FEATURES: lambda run: _judged(run),
        graph_io.CLASSIFY: lambda run: _judged(run),
        graph_io.SCORE: lambda run: _judged(run),
        graph_io.COMPLETE: _completed,
    }
    results: Results = {}
    for name, task in tasks.items():
        try:
            results[name] = task(open_graph(name))
        except Exception as error:  # whatever a runtime throws is what there is to report
            results[name] = _short(str(error)) or type(error).__name__
    return results


def expected() -> dict[str, Arrays]:
    """What the references make of the pack: the outputs of a replay in fp32."""
    logits = np.array([case["logits"] for case in CASES["model"]])
    shared = np.stack([logits[0][SHARED:]] * 2)
    greedy = {"logits": logits, "next_ids": np.zeros(logits.shape[:2], np.int64)}
    side = (len(CASES["images"]), 8, 8, 3)
    images = [np.frombuffer(base64.b64decode(case["rgb"]), np.uint8) for case in CASES["images"]]
    return {
        graph_io.PREFILL: {"logits": logits},
        graph_io.DECODE: greedy,
        graph_io.DECODE_SHARED: {"logits": shared, "next_ids": np.zeros(shared.shape[:2], np.int64)},
        graph_io.PREPROCESS: {"tokens": np.array([case["tokens"] for case in PICTURES.values()])},
        graph_io.POSTPROCESS: {"images": np.stack(images).reshape(side)},
        graph_io.FEATURES: {"features": np.array([case["features"] for case in CASES["model"]])},
        graph_io.CLASSIFY: {"probabilities": np.array([case["probabilities"] for case in CASES["model"]])},
        graph_io.SCORE: {
            "nats": np.array([case["nats"] for case in CASES["model"]]).reshape(-1, 8, 8),
            "nats_per_token": np.array([case["nats_per_token"] for case in CASES["model"]]),
        },
        graph_io.COMPLETE: {
            output: np.concatenate([case["tokens"] for case in requests]) for output, requests in _requests().items()
        },
    }


def differences(results: Results, wanted: Mapping[str, Arrays]) -> dict[str, dict[str, float] | str]:
    """Of each graph's outputs: the largest difference of floats, the number of integers that differ; or the reason."""
    found: dict[str, dict[str, float] | str] = {}
    for name, outputs in results.items():
        if isinstance(outputs, str):
            found[name] = outputs
            continue
        found[name] = {output: _difference(outputs[output], want) for output, want in wanted[name].items()}
    return found


def _short(message: str) -> str:
    """A message in one line of at most 300 characters, source files by their names."""
    return re.sub(r"\S*/", "", " ".join(message.split()))[:300]


def _difference(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() if want.dtype.kind == "f" else (got != want).sum())


def prefix_of(manifest: Manifest, prefill: Run) -> list[np.ndarray]:
    """The slots that decode_shared begins with."""
    outputs = prefill({graph_io.INPUT_IDS: _fed(TEACHER[:1])[:, :SHARED]})
    return [outputs[name] for name in graph_io.present_names(manifest.config)]


def advance(run: Run, cache: Cache, token: np.ndarray, length: int, sampling: Mapping[str, np.ndarray]) -> Arrays:
    """One step of a decode graph: the cache is replaced by the one that it returns. token: [rows, 1]."""
    slots = [f"{i}.{part}" for i in range(len(cache.own) // 2) for part in ("key", "value")]
    feeds: dict[str, np.ndarray] = {
        graph_io.INPUT_IDS: token,
        graph_io.PAST_LENGTH: np.array(length, np.int64),
        **sampling,
    }
    feeds |= {f"past_key_values.{slot}": own for slot, own in zip(slots, cache.own, strict=True)}
    feeds |= {f"prefix.{slot}": shared for slot, shared in zip(slots, cache.prefix, strict=False)}
    outputs = run(feeds)
    cache.own = [outputs[f"present.{slot}"] for slot in slots]
    return outputs


def _forced(run: Run, cache: Cache, rows: list[list[int]], first: int) -> Arrays:
    """Logits at the positions from `first` on, each picture fed token by token, and how the tokens drawn greedily are
    off the likeliest of these logits: of two that are as good as equally likely, runtimes may prefer either."""
    fed = _fed(rows)
    uniform, zero = np.zeros(len(rows), np.float32), np.array(0.0, np.float32)
    sampling = {"uniform": uniform, "temperature": zero, "top_k": np.array(0), "top_p": np.array(1.0, np.float32)}
    steps = [advance(run, cache, fed[:, i : i + 1], i, sampling) for i in range(first, fed.shape[1])]
    logits = np.stack([step["logits"] for step in steps], 1)
    return {"logits": logits, "next_ids": np.concatenate([step["next_ids"] for step in steps], 1) - logits.argmax(-1)}


def _judged(run: Run) -> Arrays:
    return _stacked([run({"image": _pixels(case["picture"])}) for case in CASES["model"]])


def _completed(run: Run) -> Arrays:
    return {
        output: np.concatenate([_complete(run, case) for case in requests]) for output, requests in _requests().items()
    }


def _complete(run: Run, case: dict[str, Any]) -> np.ndarray:
    options = {key: case[key] for key in ("temperature", "top_k", "top_p")}
    request = complete_request(_pixels(case["picture"]), case["keep"] // 8, case["n"], int(case["seed"]), **options)
    return run(request)["tokens"]


def _requests() -> dict[str, list[dict[str, Any]]]:
    """The completions of whole rows of which something is left to draw, by what is found out with them."""
    cases = [case for case in CASES["completions"] if case["keep"] % 8 == 0 and case["keep"] < 64]
    return {
        "tokens": [case for case in cases if int(case["seed"]) < 2**31],
        LARGE_SEEDS: [case for case in cases if int(case["seed"]) >= 2**31],
    }


def _fed(rows: list[list[int]]) -> np.ndarray:
    return _ints([[16, *row[:-1]] for row in rows])


def _ints(values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def _pixels(name: str) -> np.ndarray:
    case = PICTURES[name]
    pixels = np.frombuffer(base64.b64decode(case["rgb"]), np.uint8)
    return pixels.reshape(case["height"], case["width"], 3)


def _stacked(results: list[Arrays]) -> Arrays:
    return {name: np.stack([result[name] for result in results]) for name in results[0]}
