"""Serves the page that runs bundles in a browser: static files on loopback, and nothing is computed here."""

import json
import mimetypes
import shutil
import subprocess
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from igpt_runtime.bundle.bundle import Bundle
from igpt_runtime.bundle.manifest import MANIFEST_FILE
from igpt_runtime.errors import BundleError, DeviceError, OptionError

LOOPBACK = "127.0.0.1"
ORT_WEB = "onnxruntime-web"
ORT_WEB_VERSION = "1.30.0"  # what runtime/js is tested with
_TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm", ".onnx": "application/octet-stream"}
# Isolation gives the page shared memory, without which WebAssembly has no threads.
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
        "img-src 'self' blob: data:; style-src 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def javascript_path() -> Path:
    """The directory of the JavaScript runtime: in an installed package below it, in a source tree beside it."""
    packaged = Path(__file__).with_name("js")
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "js"


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


def server(bundles: Sequence[Bundle], onnxruntime_web: Path, port: int) -> ThreadingHTTPServer:
    """A server on loopback, not yet serving. port: 0 for any free one.

    Raises:
        OptionError: the port cannot be had.
    """
    roots = {"page": javascript_path() / "page", "js": javascript_path(), "ort": onnxruntime_web}

    class Handler(_Handler):
        site = _Site(bundles, roots)

    try:
        return ThreadingHTTPServer((LOOPBACK, port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OptionError(
            f"port {port} cannot be had ({reason}); choose another --port, or 0 for any free one"
        ) from error


class _Site:
    """What there is to serve."""

    def __init__(self, bundles: Sequence[Bundle], roots: dict[str, Path]) -> None:
        self._bundles, self._roots = bundles, roots

    def listing(self) -> bytes:
        """The bundles, as the page's picker wants them."""
        return json.dumps(
            [
                {
                    "name": bundle.manifest.name,
                    "precision": bundle.manifest.precision,
                    "size": sum(file.size for file in bundle.manifest.files.values()),
                    "url": f"/bundles/{i}/",
                }
                for i, bundle in enumerate(self._bundles)
            ]
        ).encode()

    def find(self, path: str) -> Path | None:
        """The file at an address, or None. Only files of the page, of onnxruntime-web and of the bundles are found."""
        first, *rest = path.strip("/").split("/")
        if path == "/":
            return self._roots["page"] / "index.html"
        if not rest or any(part in ("", ".", "..") or "\\" in part for part in rest):
            return None
        if first == "bundles" and len(rest) == 2:
            return self._of_bundle(*rest)
        if first in self._roots:
            found = self._roots[first].joinpath(*rest)
            is_inside = found.resolve().is_relative_to(self._roots[first].resolve())
            return found if is_inside and found.is_file() else None
        return None

    def _of_bundle(self, number: str, name: str) -> Path | None:
        if not number.isdecimal() or int(number) >= len(self._bundles):
            return None
        bundle = self._bundles[int(number)]
        if name == MANIFEST_FILE:
            return bundle.path / name
        try:
            return bundle.find(name)
        except BundleError:
            return None


class _Handler(BaseHTTPRequestHandler):
    site: _Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in (LOOPBACK, "localhost"):  # another site's name that was made to lead here
            self._error(HTTPStatus.FORBIDDEN)
            return
        path = unquote(urlsplit(self.path).path)
        if path == "/bundles.json":
            self._head("application/json", len(self.site.listing()))
            if with_body:
                self.wfile.write(self.site.listing())
            return
        found = None if "\0" in path else self.site.find(path)
        if found is None:
            self._error(HTTPStatus.NOT_FOUND)
            return
        kind = _TYPES.get(found.suffix) or mimetypes.guess_type(found.name)[0] or "application/octet-stream"
        try:
            with found.open("rb") as file:
                self._head(kind, found.stat().st_size)
                if with_body:
                    shutil.copyfileobj(file, self.wfile)
        except ConnectionError:
            self.close_connection = True  # the page was closed meanwhile
        except OSError:
            self._error(HTTPStatus.NOT_FOUND)

    def _head(self, kind: str, size: int) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def _error(self, status: HTTPStatus) -> None:
        text = f"{status.value} {status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: the command's terminal shows its address only."""
