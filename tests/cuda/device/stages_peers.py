"""Stages that time transformers on the same card, and compare logits with its float32."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from stage import HALF_SEED, ROOT, Json, Stage, differences, model_inputs, timed, torch_device, wait_for
from torch import nn
from transformers import (
    DynamicCache,
    ImageGPTConfig,
    ImageGPTForCausalImageModeling,
    StaticCache,
)

from igpt_runtime import open_bundle


def stage_torch(stage: Stage, size: str) -> None:
    """transformers on the same card: float32 as reference of logits; float16 and bfloat16 eagerly, and captured."""
    work = Path(stage.options["work"])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    config, tensors = load_tensors(stage, size)
    device = torch_device(stage)
    half = np.random.default_rng(HALF_SEED).integers(0, config.n_clusters, config.n_positions // 2)
    prompt = torch.from_numpy(np.concatenate([[config.sos], half])).to(device)[None]
    with stage.attempt("reference"), torch.inference_mode():
        model = image_gpt(config, tensors, torch.float32)
        inputs = torch.from_numpy(model_inputs(config, 1)).to(device)
        exact = model(inputs, use_cache=False).logits.float().cpu().numpy()
        for name in ("prefill", "steps"):
            path = work / f"ort-{size}-{name}.npy"
            if path.exists():
                found = np.load(path)
                stage[f"ONNX Runtime's {name} against float32"] = differences(found, exact[:, : found.shape[1]])
        half_model = image_gpt(config, tensors, torch.float16)
        stage["transformers' float16 against float32"] = differences(
            half_model(inputs, use_cache=False).logits.float().cpu().numpy(), exact
        )
        del model, half_model
    for dtype in stage.options["dtypes"]:
        name = f"eager {dtype}"
        with stage.attempt(name), torch.inference_mode():
            model = image_gpt(config, tensors, getattr(torch, dtype))
            model(prompt, use_cache=True)
            sync(stage)
            runs = []
            for _ in range(3):
                begin = time.perf_counter()
                cache = DynamicCache(config=model.config)
                model(prompt, past_key_values=cache, use_cache=True).logits[0, -1].cpu()
                runs.append(time.perf_counter() - begin)
            stage[f"{name}: prefill"] = min(runs)
            for rows in stage.options["torch_rows"]:
                cache = DynamicCache(config=model.config)
                three_quarters = torch.cat([prompt, prompt[:, 1:]], 1)[:, : config.n_positions * 3 // 4]
                model(three_quarters, past_key_values=cache, use_cache=True)
                cache.batch_repeat_interleave(rows)
                fed = torch.full((rows, 1), 3, device=device)
                times = []
                for _ in range(stage.options["torch_steps"]):
                    begin = time.perf_counter()
                    logits = model(fed, past_key_values=cache, use_cache=True).logits[:, -1]
                    fed = torch.multinomial(torch.softmax(logits.float(), -1), 1)
                    fed.cpu()
                    times.append(time.perf_counter() - begin)
                stage[f"{name}: steps of {rows}"] = speed(config, rows, times, min(runs))
            del model, cache
    with stage.attempt("captured"), torch.inference_mode():
        captured_steps(stage, config, tensors, prompt)


def speed(config: Any, rows: int, times: list[float], prefill: float) -> Json:
    """Of steps that took so many seconds, and of completing half a picture; the first three steps do not count."""
    median = statistics.median(times[3:])
    completion = prefill + config.n_positions // 2 * median
    return {"step_ms": 1e3 * median, "tokens_per_second": rows / median, "completion_s": completion}


def captured_steps(stage: Stage, config: Any, tensors: Any, prompt: Any) -> None:
    """GPT-2's code with a static cache and sampling as a CUDA graph: the best torch does without a compiler."""
    device, dtype = torch_device(stage), torch.float16
    model = as_gpt2(config, tensors, dtype)
    runs = []
    for _ in range(4):
        begin = time.perf_counter()
        cache = DynamicCache(config=model.config)
        model(prompt, past_key_values=cache, use_cache=True).logits[0, -1].cpu()
        runs.append(time.perf_counter() - begin)
    stage["sdpa float16: prefill"] = min(runs)
    head_dim = config.n_embd // config.n_head
    for rows in stage.options["torch_rows"]:
        cache = StaticCache(config=model.config, max_cache_len=config.n_positions)
        cache.early_initialization(rows, config.n_head, head_dim, dtype, torch.device(device))
        start = config.n_positions * 3 // 4
        for layer in cache.layers:
            layer.cumulative_length.fill_(start)
        fed = torch.full((rows, 1), 3, device=device)
        position = torch.full((1, 1), start, device=device)

        def step() -> None:
            logits = model(fed, position_ids=position, past_key_values=cache, use_cache=True).logits[:, -1]  # noqa: B023
            noise = torch.empty_like(logits, dtype=torch.float32).exponential_()
            fed.copy_((torch.softmax(logits.float(), -1) / noise).argmax(-1, keepdim=True))  # noqa: B023
            position.add_(1)  # noqa: B023

        run: Callable[[], Any] = step
        if device == "cuda":
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            run = graph.replay
        times = []
        for _ in range(stage.options["torch_steps"]):
            begin = time.perf_counter()
            run()
            fed.cpu()
            times.append(time.perf_counter() - begin)
        stage[f"sdpa float16, captured: steps of {rows}"] = speed(config, rows, times, min(runs))


def stage_compile(stage: Stage, size: str) -> None:
    """torch.compile's step with CUDA graphs, 8 rows."""
    config, tensors = load_tensors(stage, size)
    device, dtype, rows = torch_device(stage), torch.float16, 8
    with torch.no_grad():
        model = as_gpt2(config, tensors, dtype)
        cache = StaticCache(config=model.config, max_cache_len=config.n_positions)
        cache.early_initialization(rows, config.n_head, config.n_embd // config.n_head, dtype, torch.device(device))
        for layer in cache.layers:
            layer.cumulative_length.fill_(config.n_positions * 3 // 4)
        fed = torch.full((rows, 1), 3, device=device)

        def forward(fed: Any, position: Any) -> Any:
            logits = model(fed, position_ids=position, past_key_values=cache, use_cache=True).logits[:, -1]
            noise = torch.empty_like(logits, dtype=torch.float32).exponential_()
            return (torch.softmax(logits.float(), -1) / noise).argmax(-1, keepdim=True)

        options = {"mode": "reduce-overhead"} if device == "cuda" else {}
        compiled = torch.compile(forward, fullgraph=True, dynamic=False, **options)
        position = torch.full((1, 1), config.n_positions * 3 // 4, device=device)
        seconds, _ = timed(lambda: [compiled(fed, position).clone() for _ in range(4)])
        stage["compiling"] = seconds
        times = []
        for _ in range(stage.options["torch_steps"]):
            begin = time.perf_counter()
            fed.copy_(compiled(fed, position))
            position.add_(1)
            fed.cpu()
            times.append(time.perf_counter() - begin)
        median = statistics.median(times[3:])
        stage["steps of 8"] = {"step_ms": 1e3 * median, "tokens_per_second": rows / median}


def load_tensors(stage: Stage, size: str) -> tuple[Any, Any]:
    """The configuration of a size and the bundle's float16 weights under transformers' names."""
    wait_for(stage, f"{size}-fp16")
    path = Path(stage.options["kit"]) / f"graphs/{size}-fp16"
    tensors = load_file(path / "weights.safetensors", device=torch_device(stage))
    named = {name if name.startswith("lm_head.") else f"transformer.{name}": tensor for name, tensor in tensors.items()}
    return open_bundle(path).manifest.config, named


def image_gpt(config: Any, tensors: Any, dtype: Any) -> Any:
    """transformers' own class."""
    fields = {name: getattr(config, name) for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")}
    device = next(iter(tensors.values())).device
    with torch.device(device):
        model = ImageGPTForCausalImageModeling(ImageGPTConfig(**fields, tie_word_embeddings=False))
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    assert not missing, missing[:3]
    return model.to(device, dtype).eval().requires_grad_(False)  # its norms' weights are made on the CPU


class FusedNorm(nn.Module):
    """ImageGPT's layer norm as one kernel."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Any) -> Any:
        return nn.functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


def as_gpt2(config: Any, tensors: Any, dtype: Any) -> Any:
    """transformers' GPT-2 code (fused attention, static cache) with ImageGPT's arithmetic."""
    sys.path.insert(0, str(ROOT / "tests" / "bench"))
    from peers.as_gpt2 import empty_gpt2

    with torch.device(next(iter(tensors.values())).device):
        model = empty_gpt2(config, FusedNorm)
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    assert not missing, missing[:3]
    return model.to(dtype).eval().requires_grad_(False)


def sync(stage: Stage) -> None:
    if torch_device(stage) == "cuda":
        torch.cuda.synchronize()
