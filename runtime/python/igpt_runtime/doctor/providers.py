"""Which execution providers of ONNX Runtime start."""

from collections.abc import Iterator

from igpt_runtime.doctor.child import Outcome
from igpt_runtime.doctor.cuda import CUDA, cuda
from igpt_runtime.doctor.finding import BROKEN, OK, UNKNOWN, Finding, fault, one_line

_TOPIC = "ONNX Runtime"
_CPU = "CPUExecutionProvider"


def providers(cpu: Outcome, device: str, threads: int | None) -> Iterator[Finding]:
    """The CPU's and CUDA's.

    cpu: what `start_provider("cpu", ...)` gave; device: what was asked for, auto, cpu or cuda.
    """
    if cpu.error is not None:
        yield _of_error("CPU", cpu)
    elif cpu.said["started"] != _CPU:
        yield Finding(_TOPIC, "CPU", UNKNOWN, f"{cpu.said['started']} started instead", "give --device cpu")
    else:
        yield Finding(_TOPIC, "CPU", OK, "starts and runs a graph")
    listed = cpu.said.get("providers")
    if listed is None:  # it cannot be imported
        return
    if CUDA in listed:
        yield cuda(device, threads)
    elif device == "cuda":
        remedy = (
            "run: pip uninstall -y onnxruntime; then: pip install 'onnxruntime-gpu[cuda,cudnn]'. Or give --device cpu"
        )
        yield Finding(_TOPIC, "CUDA", BROKEN, "this package of ONNX Runtime has no CUDA provider", remedy)
    else:
        yield Finding(_TOPIC, "CUDA", OK, "not in this package of ONNX Runtime; all runs on the CPU")


def _of_error(name: str, outcome: Outcome) -> Finding:
    if outcome.died is None:
        return fault(_TOPIC, name, BROKEN, str(outcome.error))
    remedy = "install ONNX Runtime again; if that does not help, it has no kernels for this processor"
    return Finding(_TOPIC, name, BROKEN, one_line(f"does not start: {outcome.error}"), remedy)
