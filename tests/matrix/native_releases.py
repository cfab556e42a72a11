"""Which releases of ONNX Runtime the clients in other languages run bundles on, as Python does."""

import functools
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import engines
import matrix
from native import clients

from igpt_export.card.onnxruntime_minimum import minimum

OLDEST = tuple(sorted({minimum(matrix.FUSED, name, name).release or "" for name in matrix.PRECISIONS}))
INSTALLED = ".".join(version("onnxruntime").split(".")[:2])
RELEASES = (*OLDEST, INSTALLED)
SAME, REFUSED = "same", "refused"

Outcomes = dict[str, dict[str, str]]  # by release and precision


def library(release: str) -> Path:
    """ONNX Runtime's shared library of a release."""
    if release == INSTALLED:
        return clients.LIBRARY
    return next(engines.installed_release(release).glob("onnxruntime/capi/libonnxruntime.so.*"))


def outcomes(language: str, bundles: Mapping[str, Path]) -> Outcomes:
    """What the program of runtime/README.md does with each bundle: prints what it does in Python, or refuses."""
    with tempfile.TemporaryDirectory() as place:
        command = clients.program(language, Path(place))
        return {
            release: {precision: _outcome(command, release, bundle) for precision, bundle in bundles.items()}
            for release in RELEASES
        }


def _outcome(command: list[object], release: str, bundle: Path) -> str:
    environment = {**clients.ENVIRONMENT, "IGPT_ORT_LIBRARY": str(library(release))}
    found = _run([*command, bundle], environment)
    expected = _in_python(release, bundle)
    if expected.returncode:
        said = found.stdout + found.stderr
        needed = f"needs ONNX Runtime {matrix.manifest_of(bundle).onnxruntime_minimum} or newer"
        return REFUSED if found.returncode and needed in said else f"status {found.returncode}: {said.strip()[-200:]}"
    return SAME if (found.returncode, found.stdout) == (0, expected.stdout) else f"other: {found.stderr.strip()[-200:]}"


@functools.cache
def _in_python(release: str, bundle: Path) -> subprocess.CompletedProcess[str]:
    environment = dict(clients.ENVIRONMENT) if release == INSTALLED else engines.with_release(release)
    with tempfile.TemporaryDirectory() as place:
        return _run([*clients.program("Python", Path(place)), bundle], environment)


def _run(command: list[object], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], env=dict(environment), capture_output=True, text=True, check=False
    )
