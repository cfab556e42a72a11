"""Where the JavaScript that is served lies: this project's own, and the npm package onnxruntime-web."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from igpt_runtime.errors import DeviceError

ORT_WEB = "onnxruntime-web"
ORT_WEB_VERSION = "1.30.0"  # what runtime/js is tested with


def javascript_path() -> Path:
    """The directory of the JavaScript runtime: in an installed package below it, in a source tree beside it."""
    packaged = Path(__file__).parents[1] / "js"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[3] / "js"


def find_onnxruntime_web(given: Path | None, cache: Path, say: Callable[[str], None]) -> Path:
    """The `dist` directory of onnxruntime-web: `given`, that of the source tree, or one that npm puts into `cache`.

    say: called with a line before npm is run.

    Raises:
        DeviceError: it is nowhere, and npm is not there or fails.
    """
    if given is not None:
        candidates = [given, given / "dist"]
    else:
        places = [javascript_path(), cache / f"{ORT_WEB}-{ORT_WEB_VERSION}"]
        candidates = [place / "node_modules" / ORT_WEB / "dist" for place in places]
    for candidate in candidates:
        if (candidate / "ort.wasm.min.mjs").is_file():
            return candidate
    if given is not None:
        raise DeviceError(f"{given} holds no {ORT_WEB}; name the directory of that npm package")
    npm = shutil.which("npm")
    by_hand = f"run: npm install {ORT_WEB}@{ORT_WEB_VERSION}, and name its directory with --onnxruntime-web"
    if npm is None:
        raise DeviceError(f"the page needs {ORT_WEB}, and npm is not installed; install Node, or elsewhere {by_hand}")
    say(f"installing {ORT_WEB} {ORT_WEB_VERSION} with npm, once")
    places[1].mkdir(parents=True, exist_ok=True)
    command = [
        npm,
        "install",
        "--ignore-scripts",
        "--no-save",
        "--prefix",
        str(places[1]),
        f"{ORT_WEB}@{ORT_WEB_VERSION}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not (candidates[1] / "ort.wasm.min.mjs").is_file():
        reason = (done.stderr.strip() or "no such file came").splitlines()[0]
        raise DeviceError(f"npm could not install {ORT_WEB} ({reason}); {by_hand}")
    return candidates[1]
