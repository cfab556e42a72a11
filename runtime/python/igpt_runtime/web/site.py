"""What there is to serve: every address with its file. Whatever has no entry here cannot be asked for."""

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from igpt_runtime.bundle.bundle import Bundle
from igpt_runtime.bundle.directory import MANIFEST_FILE, WEIGHTS_FILE, leads_out
from igpt_runtime.errors import BundleError, DeviceError
from igpt_runtime.regular import IrregularFileError, open_regular

PAGE = (
    "index.html",
    "page.css",
    *(
        f"{name}.mjs"
        for name in (
            "canvas", "colours", "film", "gif", "insight", "later", "line", "link", "lzw", "model", "models", "options",
            "pad", "page", "palette", "progress", "results", "save", "shelf", "source", "tools", "worker",
        )
    ),
)  # fmt: skip
JAVASCRIPT = (
    "web.mjs",
    *(
        f"core/{name}.mjs"
        for name in (
            "bundle", "cache", "copying-graph", "errors", "generate", "host", "image", "likeness", "manifest", "model",
            "options", "ort-errors", "random", "specs",
        )
    ),
)  # fmt: skip
ONNXRUNTIME_WEB = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
# Without these the page does all but draw on a GPU.
WEBGPU = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".wasm": "application/wasm",
}


class Site:
    """Addresses, and what is behind each."""

    def __init__(self, bundles: Sequence[Bundle], javascript: Path, onnxruntime_web: Path) -> None:
        """Raises DeviceError if a file of the page is not there."""
        self.listing = _listing(bundles)
        page = javascript / "page"
        needed = {
            "/": page / PAGE[0],
            **{f"/page/{name}": page / name for name in PAGE},
            **{f"/js/{name}": javascript / name for name in JAVASCRIPT},
            **{f"/ort/{name}": onnxruntime_web / name for name in ONNXRUNTIME_WEB},
        }
        for path in needed.values():
            if not _is_plain(path):
                raise DeviceError(f"{path} is missing or not a regular file; install its package again")
        self._own = {**needed, **{f"/ort/{name}": onnxruntime_web / name for name in WEBGPU}}
        self._of_bundles = {
            f"/bundles/{i}/{name}": (bundle, name) for i, bundle in enumerate(bundles) for name in _names(bundle)
        }

    def open(self, address: str) -> tuple[BinaryIO, str] | None:
        """The file at an address, opened, and its media type; None if there is none now.

        Raises OSError if it cannot be opened for lack of descriptors and the like.
        """
        try:
            if (place := self._of_bundles.get(address)) is not None:
                bundle, name = place
                path = _manifest(bundle) if name == MANIFEST_FILE else bundle.find(name)
            elif (own := self._own.get(address)) is not None and _is_plain(own):
                path = own
            else:
                return None
            return open_regular(path), _TYPES.get(path.suffix, "application/octet-stream")
        except (BundleError, IrregularFileError, FileNotFoundError, PermissionError):  # it was changed meanwhile
            return None


def _names(bundle: Bundle) -> set[str]:
    """Of the files that a page reads: a manifest may name others."""
    graphs = {graph.file for graph in bundle.manifest.graphs.values()}
    examples = bundle.manifest.examples
    sheet = {examples.file} if examples is not None and examples.file.endswith(".png") else set()
    return {MANIFEST_FILE, WEIGHTS_FILE, *graphs, *sheet}


def _manifest(bundle: Bundle) -> Path:
    """Raises BundleError if it has become a link out of the bundle."""
    path = bundle.path / MANIFEST_FILE
    if leads_out(bundle.path, path):
        raise BundleError(f"{path} is a link out of the bundle; copy or export the bundle again")
    return path


def _listing(bundles: Sequence[Bundle]) -> bytes:
    """The bundles, as the page's picker wants them."""
    return json.dumps(
        [
            {
                "name": bundle.manifest.name,
                "precision": bundle.manifest.precision,
                "size": sum(file.size for file in bundle.manifest.files.values()),
                "url": f"/bundles/{i}/",
            }
            for i, bundle in enumerate(bundles)
        ]
    ).encode()


def _is_plain(path: Path) -> bool:
    """Whether it is a regular file, and no link to one: a link may lead anywhere."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
