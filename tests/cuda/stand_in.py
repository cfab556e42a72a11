"""ONNX Runtime's GPU package beside a CUDA runtime that needs no GPU, for programs run in a process of their own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "build" / "onnxruntime-gpu"
LIBRARIES = ROOT / "build" / "cuda-stand-in"
PROVIDER = PACKAGE / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so"
SOURCE = Path(__file__).with_name("stand_in.c")


def is_possible() -> bool:
    """Whether the stand-in can be compiled here."""
    return sys.platform == "linux" and all(map(shutil.which, ("cc", "nm", "readelf")))


def prepare() -> None:
    """Have everything that `run` needs."""
    install_package()
    build_stand_in()


def run(command: Sequence[object]) -> "subprocess.CompletedProcess[str]":
    """Run a Python program with the GPU package and no GPU."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (PACKAGE, ROOT / "runtime" / "python", ROOT))),
        "LD_LIBRARY_PATH": str(LIBRARIES),
    }
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )


def package_version() -> str:
    """Of the GPU package."""
    (found,) = distributions(name="onnxruntime-gpu", path=[str(PACKAGE)])
    return found.version


def install_package() -> None:
    """Install the GPU package beside the environment, as it cannot be in one with the CPU package; once."""
    if PROVIDER.is_file():
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PACKAGE)]
    subprocess.run([*command, "-c", str(ROOT / "constraints.txt"), "onnxruntime-gpu"], check=True)


def build_stand_in() -> None:
    """Compile the libraries that the provider is linked to."""
    dynamic = subprocess.run(["readelf", "-d", PROVIDER], capture_output=True, text=True, check=True).stdout
    listed = subprocess.run(["nm", "-D", "--undefined-only", PROVIDER], capture_output=True, text=True, check=True)
    wanted = re.findall(r"\b((?:__cuda|cuda|cublas|curand|cu)[A-Z]\w*)(?:@(\S+))?", listed.stdout)
    versions = {version for _, version in wanted} - {""}
    source = SOURCE.read_text()
    LIBRARIES.mkdir(parents=True, exist_ok=True)
    for library in re.findall(r"Shared library: \[(libcu\S+)\]", dynamic):
        # Functions of the libraries that have versions bear the library's name; the others are the driver's.
        names = {name for name, version in wanted if version == (library if library in versions else "")}
        written = source if library.startswith("libcudart") else "typedef int status;\n"
        missing = sorted(name for name in names if not re.search(rf"\b{name}\(", written))
        makers = {"cublasCreate_v2", "cublasLtCreate"} & names
        written += "".join(f"status {name}() {{ return 0; }}\n" for name in missing if name not in makers)
        written += "".join(f"status {name}(void **handle) {{ *handle = (void *)64; return 0; }}\n" for name in makers)
        (LIBRARIES / "library.c").write_text(written)
        (LIBRARIES / "versions").write_text(f"{library} {{ global: *; }};\n")
        script = [f"-Wl,--version-script={LIBRARIES / 'versions'}"] if library in versions else []
        command = ["cc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{library}", *script]
        subprocess.run([*command, "-o", LIBRARIES / library, LIBRARIES / "library.c"], check=True)
