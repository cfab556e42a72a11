"""A running server, and a package that looks like onnxruntime-web."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from web_client import Client, serving

from igpt_runtime.bundle.bundle import open_bundle
from igpt_runtime.web.onnxruntime_web import javascript_path
from igpt_runtime.web.site import ONNXRUNTIME_WEB, Site


@pytest.fixture(scope="session")
def onnxruntime_web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that looks like the npm package."""
    directory = tmp_path_factory.mktemp("onnxruntime-web")
    (directory / "dist").mkdir()
    for name in ONNXRUNTIME_WEB:
        (directory / "dist" / name).write_text("export {};")
    (directory / "package.json").write_text("{}")
    (directory / "dist" / "ort.node.min.mjs").write_text("not of the page")
    return directory


@pytest.fixture
def serve(onnxruntime_web: Path) -> Iterator[Callable[..., Client]]:
    """A function from the directories of bundles to a client of a server that offers them until the test ends."""
    with contextlib.ExitStack() as stack:

        def start(*bundles: Path, ort: Path = onnxruntime_web / "dist") -> Client:
            site = Site([open_bundle(path) for path in bundles], javascript_path(), ort)
            return Client(stack.enter_context(serving(site)))

        yield start


@pytest.fixture(scope="session")
def get(tiny_bundle: Path, onnxruntime_web: Path) -> Iterator[Client]:
    """A client of a server with the tiny bundle and the demo."""
    site = Site([open_bundle(tiny_bundle), open_bundle()], javascript_path(), onnxruntime_web / "dist")
    with serving(site) as port:
        yield Client(port)
