"""The CPU: its instructions, and the threads that may run on it."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from igpt_runtime.bench import hardware
from igpt_runtime.doctor.finding import BROKEN, OK, UNKNOWN, WARNING, Finding
from igpt_runtime.engine.cpu_quota import cpu_quota

_TOPIC = "processor"
_CPUINFO = Path("/proc/cpuinfo")
INTRA_OP = "ORT_INTRA_OP_NUM_THREADS"  # ONNX Runtime reads it where the number of threads is not given; 0 is no number

# What ONNX Runtime's kernels use: a name for people, what Linux and macOS call it, and what it is for.
_X86 = (
    ("AVX2", {"avx2"}, "every precision"),
    ("AVX-512", {"avx512f"}, "every precision"),
    ("VNNI", {"avx_vnni", "avx512_vnni", "avx512vnni"}, "8-bit and 4-bit weights"),
    ("AMX", {"amx_int8"}, "8-bit weights"),
)
_ARM = (
    ("dotprod", {"asimddp", "FEAT_DotProd"}, "8-bit and 4-bit weights"),
    ("i8mm", {"i8mm", "FEAT_I8MM"}, "8-bit and 4-bit weights"),
)
# Numbers of IsProcessorFeaturePresent in Windows, which knows no more of them.
_WINDOWS = {40: "avx2", 41: "avx512f", 43: "asimddp"}


def processor() -> Iterator[Finding]:
    """Model, cores and instructions."""
    yield Finding(_TOPIC, "model", OK, hardware.cpu_model())
    physical, logical, allowed = hardware.physical_cores(), os.cpu_count(), cpus_allowed()
    cores = "an unknown number of physical cores" if physical is None else counted(physical, "physical core")
    if allowed == logical:
        yield Finding(_TOPIC, "cores", OK, f"{counted(logical or 1, 'logical CPU')} on {cores}")
    else:
        found = f"{logical} logical CPUs; this process may use {allowed} of them, on {cores}"
        yield Finding(_TOPIC, "cores", OK, found)
    yield from _instructions()


def _instructions() -> Iterator[Finding]:
    arm = platform.machine().lower() in ("arm64", "aarch64")
    there = instructions()
    if there is None:
        yield Finding(_TOPIC, "instructions", UNKNOWN, "the system does not tell them", "see igpt-run bench")
        return
    for name, called, use in _ARM if arm else _X86:
        has = not called.isdisjoint(there)
        if has:
            yield Finding(_TOPIC, name, OK, f"yes: it makes {use} faster")
        elif name == "AVX2":
            yield Finding(_TOPIC, name, WARNING, "no: everything is slow without it", "take a processor that has it")
        elif platform.system() == "Windows" and called.isdisjoint(_WINDOWS.values()):
            continue  # Windows does not tell
        else:
            yield Finding(_TOPIC, name, OK, f"no: {use} would be faster with it")


def instructions() -> set[str] | None:
    """What the processor can do, in the words of Linux or macOS; None where the system does not tell."""
    system = platform.system()
    if system == "Linux":
        return _of_linux()
    if system == "Darwin":
        arm = {name for name in ("FEAT_DotProd", "FEAT_I8MM") if hardware.sysctl(f"hw.optional.arm.{name}") == "1"}
        intel = (hardware.sysctl("machdep.cpu.leaf7_features") or "").lower().split()
        return arm | set(intel) or None
    if sys.platform == "win32":
        present = ctypes.windll.kernel32.IsProcessorFeaturePresent
        return {name for number, name in _WINDOWS.items() if present(number)}
    return None


def _of_linux() -> set[str] | None:
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return None


def cpus_allowed() -> int | None:
    """Logical CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def threads(requested: int | None, measured: int | None) -> Iterator[Finding]:
    """How many threads work on an operator, and whether they can all run at once.

    requested: --threads; measured: how many ONNX Runtime started for it; None if that is not known.
    """
    told = os.environ.get(INTRA_OP, "")
    used = (measured or hardware.default_threads()) if requested is None else requested
    found = f"{used}, one per physical core"
    if requested is not None:
        found = f"{used}, as --threads says"
    elif told and not told.strip().isdecimal():
        remedy = f"unset {INTRA_OP}"
        yield Finding(_TOPIC, "threads", BROKEN, f"{INTRA_OP} is {told!r}, which ONNX Runtime refuses", remedy)
        return
    elif told and int(told):
        found = f"{used}, as {INTRA_OP} says"
    allowed, quota = cpus_allowed(), cpu_quota()
    if quota is not None and used > max(1, quota):
        reason = f"a control group allows this process the time of only {quota:g} CPUs"
        yield Finding(_TOPIC, "threads", WARNING, f"{found}, but {reason}", f"give --threads {max(1, int(quota))}")
    elif allowed is not None and used > allowed:
        reason = f"this process may use only {counted(allowed, 'CPU')}"
        yield Finding(_TOPIC, "threads", WARNING, f"{found}, but {reason}", f"give --threads {allowed}")
    else:
        yield Finding(_TOPIC, "threads", OK, found)
    if os.environ.get("OMP_NUM_THREADS"):
        found = f"{os.environ['OMP_NUM_THREADS']}; torch follows it, ONNX Runtime does not"
        yield Finding(_TOPIC, "OMP_NUM_THREADS", OK, found)


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural where that is right."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
