"""All checks, in the order in which one needs the other."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from igpt_runtime.doctor.bundle import bundle
from igpt_runtime.doctor.cpu import processor, threads
from igpt_runtime.doctor.finding import BROKEN, UNKNOWN, Finding, checked
from igpt_runtime.doctor.packages import Minimums, minimums, packages
from igpt_runtime.doctor.providers import providers
from igpt_runtime.doctor.start_provider import start_provider
from igpt_runtime.doctor.system import files, python
from igpt_runtime.doctor.telemetry import telemetry
from igpt_runtime.progress import SILENT, Progress

_CURE = "cure what is broken among the packages, then look again"


def examine(
    model: str | None = None,
    *,
    device: str = "auto",
    threads_asked: int | None = None,
    sha256: str | None = None,
    progress: Progress = SILENT,
) -> list[Finding]:
    """Look at this machine, this installation and a bundle. A check that raises becomes a finding.

    model, sha256: as `open_session` takes them; threads_asked: threads inside one operator.
    """
    declared = Minimums()

    def declare() -> Iterator[Finding]:
        nonlocal declared
        declared = minimums()
        yield from ()

    undeclared = checked("packages", "igpt-onnx", declare)
    found = checked("Python", "version", partial(python, declared.python))
    installed = checked("packages", "packages", partial(packages, declared))
    found += undeclared + installed
    broken = {finding.name for finding in installed if finding.status == BROKEN}
    said: dict[str, Any] = {}
    hindrance: str | None = "packages are broken"
    if "numpy" in broken or any(name.startswith("onnxruntime") for name in broken):
        found.append(Finding("ONNX Runtime", "CPU", UNKNOWN, f"not started, since {hindrance}", _CURE))
    else:
        cpu = start_provider("cpu", threads_asked)
        started = checked("ONNX Runtime", "providers", partial(providers, cpu, device, threads_asked))
        found += started
        said = cpu.said
        idle = [finding.name for finding in started if finding.status == BROKEN]
        hindrance = f"ONNX Runtime does not start on {idle[0]}" if idle else None
    found += checked("processor", "model", processor)
    found += checked("processor", "threads", partial(threads, threads_asked, said.get("threads")))
    found += checked("telemetry", "telemetry", partial(telemetry, said.get("environment")))
    found += checked("files", "files", files)
    if "numpy" in broken:
        return [*found, Finding("bundle", "manifest", UNKNOWN, "not read, since it takes numpy", _CURE)]
    return found + checked(
        "bundle", "bundle", partial(bundle, model, device, threads_asked, progress, hindrance=hindrance, sha256=sha256)
    )
