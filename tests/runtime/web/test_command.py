"""`igpt-run web`: how it starts, how it refuses to, and how it ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from igpt_runtime.cli import main
from igpt_runtime.errors import DeviceError
from igpt_runtime.web import onnxruntime_web as package
from igpt_runtime.web.server import LOOPBACK


def test_command(onnxruntime_web: Path, tiny_bundle: Path) -> None:
    """It prints its address, serves until interrupted, and ends well."""
    command = [sys.executable, "-m", "igpt_runtime", "web", "--no-open", "--port", "0", "--model", tiny_bundle]
    with subprocess.Popen(
        [*command, "--onnxruntime-web", onnxruntime_web],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": ""},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        address = process.stdout.readline().strip()
        with closing(http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=10)) as connection:
            connection.request("GET", "/bundles.json")
            assert len(json.loads(connection.getresponse().read())) == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0 and process.stderr.read() == ""


def test_refusals(refused: Callable[..., str], onnxruntime_web: Path, tmp_path: Path) -> None:
    good = ("web", "--no-open", "--onnxruntime-web", onnxruntime_web)
    assert "no bundle at nowhere" in refused(main, *good, "--model", "nowhere")
    assert "holds no onnxruntime-web" in refused(main, "web", "--no-open", "--onnxruntime-web", tmp_path)
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} cannot be had" in refused(main, *good, "--port", port)
    assert "port 70000 cannot be had" in refused(main, *good, "--port", 70000)


def test_without_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "javascript_path", lambda: tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(DeviceError, match="npm is not installed; install Node"):
        package.find_onnxruntime_web(None, tmp_path, print)


def test_npm_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "javascript_path", lambda: tmp_path)
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    said: list[str] = []
    with pytest.raises(DeviceError, match=r"npm could not install onnxruntime-web \(no network\); run: npm install"):
        package.find_onnxruntime_web(None, tmp_path / "cache", said.append)
    assert said == [f"installing onnxruntime-web {package.ORT_WEB_VERSION} with npm, once"]
