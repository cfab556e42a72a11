"""The stage that tells where a step's time goes, by torch's profiler."""

import numpy as np
import torch
from stage import Stage, session_of, torch_device, use, wait_for
from torch.profiler import ProfilerActivity, profile

from igpt_runtime import GenerationOptions
from igpt_runtime.engine.generate import DecodeStep, start_cache


def stage_profile(stage: Stage, size: str) -> None:
    """Where the time of a step of 8 rows goes, by kernel, and how many CUDA graphs are launched."""
    wait_for(stage, f"{size}-fp16")
    torch.zeros(1, device=torch_device(stage))
    use(stage.options["config"])
    session = session_of(stage, f"graphs/{size}-fp16")
    rows, steps = 8, 20
    step = DecodeStep(session, start_cache(session, [], rows), GenerationOptions())
    tokens = np.full((rows, 1), 3, np.int64)
    start = session.manifest.config.n_positions * 3 // 4
    for position in range(start, start + 5):
        tokens = step(tokens, position, np.zeros(rows, np.float32))
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (torch_device(stage) == "cuda")
    with profile(activities=activities) as profiler:
        for position in range(start + 5, start + 5 + steps):
            tokens = step(tokens, position, np.zeros(rows, np.float32))
    events = profiler.key_averages()
    stage["calls in 20 steps"] = {e.key: e.count for e in events if e.key.startswith("cuda")}
    kernels = [
        (e.self_device_time_total / steps, e.count / steps, e.key[:110]) for e in events if e.self_device_time_total
    ]
    stage["microseconds a step, launches a step, kernel"] = sorted(kernels, reverse=True)[:25]
    stage["kernels' microseconds a step"] = sum(k[0] for k in kernels)
    stage["kernels a step"] = sum(k[1] for k in kernels)
