"""Whether programs that run here tell their makers about it."""

import importlib.util
import mmap
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from igpt_runtime.doctor.finding import OK, UNKNOWN, WARNING, Finding
from igpt_runtime.privacy import HUB, ONNX_RUNTIME, is_asked_for

_TOPIC = "telemetry"
SWITCH = ONNX_RUNTIME
_COLLECTOR = "events.data.microsoft.com"  # in libraries of ONNX Runtime that can send
# Of these, set by services of continuous integration, one is enough; onnxruntime/core/platform/telemetry_environment.h.
_SERVICES = (
    "CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID",
    "BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR", "BITBUCKET_BUILD_NUMBER", "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI",
)  # fmt: skip
VARIABLES = (SWITCH, *_SERVICES)
_LIBRARIES = ("*.so*", "*.dylib", "*.dll", "*.pyd")


def telemetry(environment: Mapping[str, str] | None) -> Iterator[Finding]:
    """ONNX Runtime's and, where it is installed, the Hugging Face hub's.

    environment: the variables when ONNX Runtime was imported; None if it could not be.
    """
    if environment is None:
        yield Finding(_TOPIC, "ONNX Runtime", UNKNOWN, "not known, since it does not run", "cure that first")
    else:
        yield _onnxruntime(environment)
    if importlib.util.find_spec("huggingface_hub") is not None:
        yield Finding(_TOPIC, "Hugging Face hub", OK, _hub())


def _onnxruntime(environment: Mapping[str, str]) -> Finding:
    module = importlib.util.find_spec("onnxruntime")
    folder = Path(module.origin).parent / "capi" if module is not None and module.origin else None
    libraries = [] if folder is None else [path for pattern in _LIBRARIES for path in folder.glob(pattern)]
    if not libraries:
        return Finding(_TOPIC, "ONNX Runtime", UNKNOWN, "not known: its libraries are not found", f"set {SWITCH}=1")
    if not any(_holds(path, _COLLECTOR) for path in libraries):
        if sys.platform == "win32":
            found = "not known: Windows decides which events of ONNX Runtime it sends to Microsoft"
            return Finding(_TOPIC, "ONNX Runtime", UNKNOWN, found, "see Diagnostics & feedback in Windows' settings")
        return Finding(_TOPIC, "ONNX Runtime", OK, "off: this build cannot send any")
    if not any(_holds(path, SWITCH) for path in libraries):
        found = f"not known: this build can send, and has no {SWITCH}"
        return Finding(_TOPIC, "ONNX Runtime", UNKNOWN, found, "read Privacy.md of the package onnxruntime")
    if environment.get(SWITCH, "").strip().lower() in ("1", "true", "yes", "on", "y"):
        return Finding(_TOPIC, "ONNX Runtime", OK, f"off: {_how(SWITCH)}")
    for name in _SERVICES:
        if environment.get(name, "").strip().lower() not in ("", "0", "false", "no", "off"):
            return Finding(_TOPIC, "ONNX Runtime", OK, f"off: {name} is set, as in continuous integration")
    found = f"on: ONNX Runtime sends events about its use to Microsoft, at {_COLLECTOR}"
    return Finding(_TOPIC, "ONNX Runtime", WARNING, found, f"to send none, unset {SWITCH}")


def _how(switch: str) -> str:
    """By whom a variable was set to 1."""
    if switch in os.environ:
        return f"{switch} is {os.environ[switch]}"
    return f"igpt-run sets {switch}=1"


def _holds(path: Path, text: str) -> bool:
    """Whether a text is in a file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text.encode()) >= 0
    except (OSError, ValueError):  # an empty file has no content to look into
        return False


def _hub() -> str:
    for name in ("DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"off: {name} is {os.environ[name]}"
    if is_asked_for(HUB):
        return f"downloads name the versions of Python and torch; unset {HUB} to leave torch out"
    return f"off: {_how(HUB)}"
