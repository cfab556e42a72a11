"""Starts an execution provider in a process of its own."""

from igpt_runtime.doctor.child import Outcome, run
from igpt_runtime.doctor.telemetry import VARIABLES

_PATIENCE = 300  # seconds: the first use of a GPU may compile its kernels


def start_provider(device: str, threads: int | None) -> Outcome:
    """Start a provider as the commands do."""
    return run("start", timeout=_PATIENCE, device=device, threads=threads, variables=VARIABLES)
