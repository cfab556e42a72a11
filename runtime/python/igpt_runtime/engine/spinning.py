"""Whether ONNX Runtime's threads wait for work busily, which is fast where the cores are free, and slow where not."""

import os
from pathlib import Path

from igpt_runtime.engine.cpu_quota import cpu_quota
from igpt_runtime.errors import OptionError

SPIN = ("auto", "always", "never")
ALLOW_SPINNING = "session.intra_op.allow_spinning"  # ONNX Runtime's option
_LOAD = Path("/proc/loadavg")


def may_spin(choice: str, threads: int | None) -> bool:
    """Whether idle threads are to spin. choice: one of SPIN; threads: of a session, None for one per physical core.

    "auto" is yes where no other work runs at this moment on cores that they need, and no control group limits this
    process to less time than they would take. Where that cannot be told, it is yes, as ONNX Runtime does.

    Raises OptionError for another choice.
    """
    if choice not in SPIN:
        raise OptionError(f"unknown spin {choice!r}; choose one of {', '.join(SPIN)}")
    if choice != "auto":
        return choice == "always"
    cores = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    needed = min(threads or allowed, allowed)
    quota, others = cpu_quota(), _running_elsewhere()
    return (quota is None or needed <= quota) and (others is None or needed + others <= cores)


def _running_elsewhere() -> int | None:
    """Threads on this machine that run or want to, without this one; None where the system does not say."""
    try:
        running = _LOAD.read_text().split()[3].partition("/")[0]
        return max(0, int(running) - 1)
    except (OSError, ValueError, IndexError):
        return None
