"""The machine that is measured on: what it is, and whether it is quiet."""

import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

QUIET_WAIT = 60  # seconds to wait for other programs to pause before a system is measured
QUIET = 0.05  # share of the processors that other programs may use
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")


def describe() -> dict[str, Any]:
    """What the figures depend on and a reader can compare with."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.machine()).strip(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": [flag for flag in _INSTRUCTIONS if flag in flags],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "python": platform.python_version(),
    }


def has_avx512() -> bool:
    """Whether the processor has AVX-512."""
    return "avx512f" in describe()["instructions"]


def _processor_times() -> list[int]:
    return [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]


class Others:
    """How much of the machine other programs use, from the moment this is made: a measurement wants 0."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        """Seconds of processor time: of everybody, idle or not, and of other programs."""
        if not Path("/proc/stat").exists():
            return 0.0, 0.0
        ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = ticks[3] + ticks[4]  # idle, and waiting for disks
        tick = 1 / os.sysconf("SC_CLK_TCK")
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(use.ru_utime + use.ru_stime for use in usage)
        return sum(ticks) * tick, (sum(ticks) - idle) * tick - own

    def share(self) -> float:
        """Their share of the processors since then; 0 where the system does not say."""
        everybody, others = (now - before for now, before in zip(self._now(), self._before, strict=True))
        return max(0.0, round(others / everybody, 3)) if everybody else 0.0


def wait_until_quiet() -> None:
    """Wait for other programs to pause, at most QUIET_WAIT seconds."""
    end = time.monotonic() + QUIET_WAIT
    while time.monotonic() < end:
        others = Others()
        time.sleep(1.0)
        if others.share() <= QUIET:
            return
