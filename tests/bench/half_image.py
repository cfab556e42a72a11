"""Times one half image to n completions: `igpt-run`'s engine against transformers' `generate`, side by side.

Each side runs in a process of its own, in turns, on the same machine; the pictures the engine drew are then checked
against transformers' logits. Usage: python tests/bench/half_image.py BUNDLE CHECKPOINT_OR_VARIANT [-n 8] [--rounds 2]
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0


def primer(n_clusters: int, length: int) -> np.ndarray:
    """The given half: fixed random tokens, since the work does not depend on what they show."""
    return np.random.default_rng(SEED).integers(0, n_clusters, length)


def run_engine(bundle: str, n: int, out: str) -> dict[str, float]:
    """Time the engine; saves the tokens it drew."""
    from igpt_runtime import GenerationOptions, generate_all, open_session

    begin = time.perf_counter()
    session = open_session(bundle, device="cpu")
    session.graph("decode")
    load = time.perf_counter() - begin
    config = session.manifest.config
    begin = time.perf_counter()
    given = primer(config.n_clusters, config.n_positions // 2)
    tokens = generate_all(session, given, GenerationOptions(n=n, seed=SEED))
    seconds = time.perf_counter() - begin
    np.save(out, tokens)
    return {"load": load, "seconds": seconds, "tokens_per_second": n * (config.n_positions // 2) / seconds}


def transformers_model(checkpoint: str) -> Any:
    """transformers' model of a checkpoint directory, or of a variant with igpt-export's random weights, seed 0."""
    import transformers

    if Path(checkpoint).is_dir():
        return transformers.ImageGPTForCausalImageModeling.from_pretrained(checkpoint).eval()
    from igpt_export.checkpoint import random_checkpoint

    source = random_checkpoint(checkpoint, seed=0)
    config = source.config
    theirs = transformers.ImageGPTForCausalImageModeling(
        transformers.ImageGPTConfig(
            vocab_size=config.vocab_size,
            n_positions=config.n_positions,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
        )
    )
    heads = ("lm_head.",)
    theirs.load_state_dict({k if k.startswith(heads) else f"transformer.{k}": v for k, v in source.tensors.items()})
    return theirs.eval()


def run_transformers(checkpoint: str, n: int) -> dict[str, float]:
    """Time transformers' `generate` with its default cache."""
    import torch

    begin = time.perf_counter()
    model = transformers_model(checkpoint)
    load = time.perf_counter() - begin
    config = model.config
    half = config.n_positions // 2
    given = np.concatenate([[config.vocab_size - 1], primer(config.vocab_size - 1, half)])
    start = torch.from_numpy(given)[None].expand(n, -1)
    with torch.inference_mode():
        begin = time.perf_counter()
        drawn = model.generate(
            start,
            attention_mask=torch.ones_like(start),
            max_length=config.n_positions + 1,
            do_sample=True,
            top_k=0,
            pad_token_id=0,
        )
        seconds = time.perf_counter() - begin
    assert drawn.shape == (n, config.n_positions + 1)
    return {"load": load, "seconds": seconds, "tokens_per_second": n * half / seconds}


def check(checkpoint: str, tokens_file: str) -> dict[str, float]:
    """Redraw every token from transformers' logits and the same uniforms; returns the share that agrees."""
    import torch

    from igpt_runtime.random import uniforms

    model = transformers_model(checkpoint)
    tokens = np.load(tokens_file)
    n, n_positions = tokens.shape
    inputs = np.concatenate([np.full((n, 1), model.config.vocab_size - 1), tokens[:, :-1]], axis=1)
    draws = uniforms(SEED, range(n), range(n_positions))
    agree = []
    for row in range(n):
        with torch.inference_mode():
            logits = model(torch.from_numpy(inputs[row : row + 1])).logits[0].double().numpy()
        order = np.argsort(-logits, axis=1, kind="stable")
        ranked = np.take_along_axis(logits, order, axis=1)
        cumulative = np.cumsum(np.exp(ranked - ranked[:, :1]), axis=1)
        rank = (cumulative <= draws[row][:, None] * cumulative[:, -1:]).sum(axis=1)
        redrawn = np.take_along_axis(order, rank[:, None], axis=1)[:, 0]
        agree.append((redrawn == tokens[row])[n_positions // 2 :].mean())
    return {"tokens_that_agree": float(np.mean(agree))}


def in_process(*arguments: str) -> dict[str, float]:
    """One measurement in a fresh process, with its peak memory."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Parse, measure in turns, print a table and the JSON record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("checkpoint")
    parser.add_argument("-n", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=["engine", "transformers", "check"], help=argparse.SUPPRESS)
    parser.add_argument("--tokens", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        sides = {
            "engine": lambda: run_engine(options.bundle, options.n, options.tokens),
            "transformers": lambda: run_transformers(options.checkpoint, options.n),
            "check": lambda: check(options.checkpoint, options.tokens),
        }
        result = sides[options.side]()
        result["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as directory:
        common = (options.bundle, options.checkpoint, "-n", str(options.n), "--tokens", f"{directory}/tokens.npy")
        rounds = [
            {side: in_process(*common, "--side", side) for side in ("engine", "transformers")}
            for _ in range(options.rounds)
        ]
        agreement = in_process(*common, "--side", "check")["tokens_that_agree"]
    ratios = [r["transformers"]["seconds"] / r["engine"]["seconds"] for r in rounds]
    for r in rounds:
        for side, m in r.items():
            print(
                f"{side:13} {m['seconds']:7.2f} s  {m['tokens_per_second']:7.0f} tokens/s  peak {m['peak_gb']:.2f} GB"
            )
    print(
        f"ratio {min(ratios):.2f} .. {max(ratios):.2f}; {agreement:.2%} of the tokens follow from transformers' logits"
    )
    if agreement < 0.999:
        sys.exit("the engine's tokens do not follow from transformers' logits: its speed means nothing")
    versions = {name: version(name) for name in ("onnxruntime", "torch", "transformers")}
    record = {"n": options.n, "rounds": rounds, "ratios": ratios, "agreement": agreement, "versions": versions}
    print(json.dumps({**record, "machine": platform.processor() or platform.machine()}))


if __name__ == "__main__":
    main()
