"""What `igpt-run web` serves, to whom, and how it refuses to start."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from igpt_runtime import web
from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.cli import main
from igpt_runtime.errors import DeviceError

Get = Callable[..., tuple[http.client.HTTPResponse, bytes]]


@pytest.fixture(scope="module")
def onnxruntime_web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that looks like the npm package."""
    directory = tmp_path_factory.mktemp("onnxruntime-web")
    (directory / "dist").mkdir()
    (directory / "dist" / "ort.wasm.min.mjs").write_text("export {};")
    (directory / "dist" / "ort.wasm").write_bytes(b"\0asm")
    (directory / "secret").write_text("not to be served")
    (directory / "dist" / "link").symlink_to(directory / "secret")
    return directory


@pytest.fixture(scope="module")
def get(tiny_bundle: Path, onnxruntime_web: Path) -> Iterator[Get]:
    """A function that asks a running server for a path."""
    with web.server([open_bundle(tiny_bundle), open_bundle()], onnxruntime_web / "dist", 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()

        def ask(path: str, method: str = "GET", host: str | None = None) -> tuple[http.client.HTTPResponse, bytes]:
            with closing(http.client.HTTPConnection(web.LOOPBACK, serving.server_port, timeout=10)) as connection:
                connection.request(method, path, headers={} if host is None else {"Host": host})
                response = connection.getresponse()
                return response, response.read()

        yield ask
        serving.shutdown()


def test_bundles(get: Get, tiny_bundle: Path) -> None:
    _, body = get("/bundles.json")
    listed = json.loads(body)
    assert [item["url"] for item in listed] == ["/bundles/0/", "/bundles/1/"]
    assert listed[0]["name"] == open_bundle(tiny_bundle).manifest.name and listed[0]["precision"] == "fp32"
    for name in ("manifest.json", "weights.safetensors", "complete.onnx"):
        response, body = get(f"/bundles/0/{name}")
        assert response.status == 200 and body == (tiny_bundle / name).read_bytes()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/page/page.mjs", "text/javascript"),
        ("/js/web.mjs", "text/javascript"),
        ("/js/core/model.mjs", "text/javascript"),
        ("/ort/ort.wasm.min.mjs", "text/javascript"),
        ("/ort/ort.wasm", "application/wasm"),
        ("/bundles/1/weights.safetensors", "application/octet-stream"),
    ],
)
def test_files_and_headers(get: Get, path: str, kind: str) -> None:
    response, body = get(path)
    assert response.status == 200 and response.headers["Content-Type"] == kind and body
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    head, nothing = get(path, "HEAD")
    assert head.status == 200 and head.headers["Content-Length"] == str(len(body)) and nothing == b""


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/js", "/js/", "/js/../python/pyproject.toml", "/js/%2e%2e/SPEC.md", "/js/..%2fSPEC.md",
        "/js//etc/passwd",
        "/ort/../secret", "/ort/link", "/ort/%2e%2e/secret", "/bundles/2/manifest.json", "/bundles/-1/manifest.json",
        "/bundles/0/../../pyproject.toml", "/bundles/0/notes.txt", "/bundles/0/", "/bundles/x/manifest.json",
        "/bundles/0/manifest.json/x", "/page/..\\SPEC.md", "/page/%00", "//etc/passwd",
    ],
)  # fmt: skip
def test_nothing_else_is_served(get: Get, path: str) -> None:
    response, body = get(path)
    assert response.status == 404 and body == b"404 Not Found\n"


def test_other_hosts_are_refused(get: Get) -> None:
    """A site whose name was made to lead here cannot read what is served."""
    assert get("/bundles.json", host="evil.example:8000")[0].status == 403
    assert get("/bundles.json", host="localhost:1")[0].status == 200
    assert get("/bundles.json", "POST")[0].status == 501


def test_command(onnxruntime_web: Path, tiny_bundle: Path) -> None:
    """It prints its address, serves until interrupted, and ends well."""
    command = [sys.executable, "-m", "igpt_runtime.cli", "web", "--no-open", "--port", "0", "--model", tiny_bundle]
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
    with socket.create_server((web.LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} cannot be had" in refused(main, *good, "--port", port)
    assert "port 70000 cannot be had" in refused(main, *good, "--port", 70000)


def test_without_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "javascript_path", lambda: tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(DeviceError, match="npm is not installed; install Node"):
        web.find_onnxruntime_web(None, tmp_path, print)


def test_npm_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "javascript_path", lambda: tmp_path)
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    said: list[str] = []
    with pytest.raises(DeviceError, match=r"npm could not install onnxruntime-web \(no network\); run: npm install"):
        web.find_onnxruntime_web(None, tmp_path / "cache", said.append)
    assert said == [f"installing onnxruntime-web {web.ORT_WEB_VERSION} with npm, once"]
