"""Starts an execution provider in a process of its own."""

from igpt_runtime.doctor.child import Outcome, run
from igpt_runtime.doctor.telemetry import VARIABLES

_PATIENCE = 300  # seconds: the first use of a GPU may compile its kernels


def start_provider(device: str, threads: int | None, preload: bool = False) -> Outcome:
    """Start a provider as the commands do.

    preload: first load the CUDA libraries that are in Python's packages.
    """
    return run("start", timeout=_PATIENCE, device=device, threads=threads, variables=VARIABLES, preload=preload)
