"""Which providers start. There is no GPU here: a module takes onnxruntime's place and says what the real one says."""

import os
import signal
from pathlib import Path

import pytest

from igpt_runtime.doctor.cuda import missing_library
from igpt_runtime.doctor.finding import BROKEN, OK, WARNING, Finding
from igpt_runtime.doctor.providers import providers
from igpt_runtime.doctor.start_provider import start_provider

# As onnxruntime-gpu 1.31.1 says it, where CUDA's libraries, or the driver, are missing.
NOT_LOADED = (
    "\x1b[1;31m2026-11-27 00:58:38.888474436 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    "/usr/lib/python3/onnxruntime/capi/libonnxruntime_providers_cuda.so with error: {}: cannot open shared object file"
    ": No such file or directory\n\x1b[m\n\x1b[0;93m2026-11-27 00:58:38.888521639 [W:onnxruntime:Default, "
    "onnxruntime_pybind_state.cc:1295 CreateExecutionProviderFactoryInstance] Failed to create CUDAExecutionProvider. "
    "Require cuDNN 9.* and CUDA 13.*. Please install all dependencies as mentioned in the GPU requirements page "
    "(https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#requirements), make sure they're in "
    "the PATH, and that your GPU is supported.\x1b[m\n"
)
ON_WINDOWS = (
    '2026-11-27 [E:onnxruntime:Default, provider_bridge_ort.cc:2167] FAIL : Error loading "C:\\onnxruntime\\capi\\'
    'onnxruntime_providers_cuda.dll" which depends on "cublasLt64_13.dll" which is missing. (Error 126: "The specified '
    'module could not be found.")\n'
)
NO_GPU = (
    "*************** EP Error ***************\nEP Error /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:"
    "129 std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime::CudaCall(...) CUDA failure 100: no "
    "CUDA-capable device is detected ; GPU=32764 ; hostname=box ; file=cuda_execution_provider.cc ; line=282 ; "
    "expr=cudaSetDevice(info_.device_id); \n when using ['CUDAExecutionProvider', 'CPUExecutionProvider']\n"
)
MODULE = '''
"""Stands for onnxruntime-gpu: lists CUDA, and starts it or not."""
import os, signal
from types import SimpleNamespace

__version__ = "1.31.1"
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_preloaded = False
GraphOptimizationLevel = SimpleNamespace(ORT_DISABLE_ALL=0)

def get_available_providers():
    return ["TensorrtExecutionProvider", _CUDA, _CPU]

def preload_dlls():
    global _preloaded
    _preloaded = True
    os.write(1, b"Failed to load libcurand.so.10\\n")

class SessionOptions:
    def add_session_config_entry(self, name, value):
        pass

class InferenceSession:
    def __init__(self, path, options, providers, enable_fallback):
        wanted = [name if isinstance(name, str) else name[0] for name in providers]
        assert enable_fallback == (_CUDA in wanted)
        self._providers = wanted
        if _CUDA in wanted and not (_preloaded and os.environ.get("FAKE_CURED")):
            if os.environ.get("FAKE_SIGNAL"):
                os.kill(os.getpid(), int(os.environ["FAKE_SIGNAL"]))
            said = os.environ.get("FAKE_SAID", "")
            os.write(1 if said.startswith("*") else 2, said.encode())  # the real one prints to both
            self._providers = [_CPU] if said else wanted

    def disable_fallback(self):
        pass

    def get_providers(self):
        return self._providers

    def get_inputs(self):
        return [SimpleNamespace(name="tokens", type="tensor(int64)", shape=["batch", 256])]

    def get_outputs(self):
        return [SimpleNamespace(name="images", type="tensor(uint8)", shape=["batch", 16, 16, 3])]

    def run(self, outputs, inputs):
        assert inputs["tokens"].shape == (1, 256)
'''


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The module instead of onnxruntime, in the processes that doctor starts."""
    (tmp_path / "onnxruntime.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return monkeypatch


def cuda(device: str = "auto") -> Finding:
    findings = {finding.name: finding for finding in providers(start_provider("cpu", None), device, None)}
    assert findings["CPU"].status == OK
    return findings["CUDA"]


def test_the_cpu() -> None:
    outcome = start_provider("cpu", None)
    assert outcome.error is None and outcome.said["started"] == "CPUExecutionProvider"
    findings = list(providers(outcome, "auto", None))
    assert [finding.status for finding in findings] == [OK, OK]
    assert findings[1].found == "not in this package of ONNX Runtime; all runs on the CPU"


def test_cuda_asked_for_where_there_is_none() -> None:
    _, finding = providers(start_provider("cpu", None), "cuda", None)
    assert finding.status == BROKEN and finding.remedy is not None and "onnxruntime-gpu" in finding.remedy


def test_cuda_starts(stand_in: pytest.MonkeyPatch) -> None:
    assert cuda() == Finding("ONNX Runtime", "CUDA", OK, "starts and runs a graph")


@pytest.mark.parametrize(("device", "status"), [("auto", WARNING), ("cuda", BROKEN)])
def test_a_library_is_missing(stand_in: pytest.MonkeyPatch, device: str, status: str) -> None:
    stand_in.setenv("FAKE_SAID", NOT_LOADED.format("libcublasLt.so.13"))
    finding = cuda(device)
    assert (finding.status, finding.found) == (status, "does not start: libcublasLt.so.13 is missing")
    assert finding.remedy is not None and finding.remedy.startswith("run: pip install 'onnxruntime-gpu[cuda,cudnn]'")


def test_libraries_are_loaded_before(stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("FAKE_SAID", NOT_LOADED.format("libcublasLt.so.13"))
    stand_in.setenv("FAKE_CURED", "1")
    assert cuda() == Finding("ONNX Runtime", "CUDA", OK, "starts and runs a graph")


def test_the_driver_is_missing(stand_in: pytest.MonkeyPatch) -> None:
    """What is still missing when all that can be found is loaded is what has to be cured."""
    stand_in.setenv("FAKE_SAID", NOT_LOADED.format("libcuda.so.1"))
    finding = cuda()
    assert (finding.found, finding.remedy) == ("does not start: libcuda.so.1 is missing", "install NVIDIA's driver")


def test_no_gpu(stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("FAKE_SAID", NO_GPU)
    finding = cuda()
    assert finding.found == "does not start: CUDA failure 100: no CUDA-capable device is detected"
    assert finding.remedy == "compare with what nvidia-smi says"


def test_no_reason(stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("FAKE_SAID", "something new\n")
    assert cuda().found.startswith("does not start: CUDA was asked for but ONNX Runtime could not start it")


def test_a_crash(stand_in: pytest.MonkeyPatch) -> None:
    stand_in.setenv("FAKE_SIGNAL", str(int(signal.SIGSEGV)))
    assert cuda().found.startswith("does not start: the process was ended by SIGSEGV")


def test_nothing_of_it_is_printed(stand_in: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in.setenv("FAKE_SAID", NO_GPU)
    cuda("cuda")
    assert capfd.readouterr() == ("", "")


def test_the_library_in_what_windows_says() -> None:
    assert missing_library(ON_WINDOWS) == "cublasLt64_13.dll"
    assert missing_library(NO_GPU) is None


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("raise ImportError('libgomp.so.1: cannot open it')", "cannot be imported (libgomp.so.1"),
        ("raise AttributeError('a bug')", "AttributeError: a bug"),
        (f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})", "the process was ended by SIGILL"),
        ("import os; os._exit(7)", "the process ended with exit status 7"),
    ],
)
def test_an_onnxruntime_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, text: str
) -> None:
    (tmp_path / "onnxruntime.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path))
    (finding,) = providers(start_provider("cpu", None), "auto", None)
    assert finding.status == BROKEN and text in finding.found and finding.remedy


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    assert "cannot be started" in str(start_provider("cpu", None).error)


def test_a_process_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("igpt_runtime.doctor.start_provider._PATIENCE", 2)
    assert start_provider("cpu", None).error == "the process did not end within 2 s"
