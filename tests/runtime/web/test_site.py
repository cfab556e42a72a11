"""What the page's server gives away: the files that the page loads, and nothing else."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from web_client import Client

from igpt_runtime.bundle.bundle import demo_bundle_path, open_bundle
from igpt_runtime.errors import DeviceError
from igpt_runtime.web.onnxruntime_web import javascript_path
from igpt_runtime.web.site import JAVASCRIPT, ONNXRUNTIME_WEB, PAGE, WEBGPU, Site

NODE_MODULES = Path(__file__).parents[3] / "runtime" / "js" / "node_modules"
IMPORT = re.compile(r"""(?:from |import\(|import |new Worker\(|href=|src=)['"`]([^'"`]+\.(?:mjs|css))['"`]""")


def test_what_is_served_is_what_the_page_loads() -> None:
    """Followed from the page's first file through all that they name."""
    root = javascript_path()
    places = {"/page/": root / "page", "/js/": root}
    found, waiting = set(), ["/page/index.html"]
    while waiting:
        address = waiting.pop()
        found.add(address)
        prefix = next(prefix for prefix in places if address.startswith(prefix))
        text = (places[prefix] / address.removeprefix(prefix)).read_text()
        for name in IMPORT.findall(text):
            target = os.path.normpath(name if name.startswith("/") else f"{os.path.dirname(address)}/{name}")
            if target not in found and not target.startswith("/ort/"):
                waiting.append(target)
    assert found == {*(f"/page/{name}" for name in PAGE), *(f"/js/{name}" for name in JAVASCRIPT)}


@pytest.mark.skipif(not NODE_MODULES.is_dir(), reason="needs `make js` before")
def test_what_is_served_of_onnxruntime_web_is_what_it_loads() -> None:
    dist = NODE_MODULES / "onnxruntime-web" / "dist"
    for first, *others in (ONNXRUNTIME_WEB, WEBGPU):
        binaries = set(re.findall(r"ort-wasm[a-z.-]+\.(?:mjs|wasm)", (dist / first).read_text()))
        assert {name.replace(".wasm", ".mjs") for name in others} == {n.replace(".wasm", ".mjs") for n in binaries}
        assert all((dist / name).is_file() for name in (first, *others))


def test_bundles(get: Client, tiny_bundle: Path) -> None:
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
        ("/page/page.css", "text/css"),
        ("/js/web.mjs", "text/javascript"),
        ("/js/core/model.mjs", "text/javascript"),
        ("/js/core/mod%65l.mjs?x=1", "text/javascript"),
        ("/ort/ort.wasm.min.mjs", "text/javascript"),
        ("/ort/ort-wasm-simd-threaded.wasm", "application/wasm"),
        ("/bundles/1/weights.safetensors", "application/octet-stream"),
        ("/bundles/0/manifest.json", "application/json"),
    ],
)
def test_files(get: Client, path: str, kind: str) -> None:
    response, body = get(path)
    assert response.status == 200 and response.headers["Content-Type"] == kind and body
    head, nothing = get(path, "HEAD")
    assert head.status == 200 and head.headers["Content-Length"] == str(len(body)) and nothing == b""


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/js", "/js/", "/js/../python/pyproject.toml", "/js/%2e%2e/SPEC.md", "/js/..%2fSPEC.md",
        "/js//etc/passwd", "//etc/passwd", "/page", "/page/..\\SPEC.md", "/page/%00", "/page/page.mjs%00",
        "/index.html",
        # of the packages, and not of the page
        "/js/package.json", "/js/package-lock.json", "/js/.npmrc", "/js/.gitignore", "/js/tsconfig.json",
        "/js/index.d.ts",
        "/js/node.mjs", "/js/core/node-graph.mjs", "/js/test/golden.mjs", "/js/test/errors.test.mjs", "/js/page.png",
        "/js/examples/complete.mjs", "/js/page/page.mjs", "/js/node_modules/onnxruntime-web/package.json",
        "/ort/package.json", "/ort/../package.json", "/ort/%2e%2e/package.json", "/ort/ort.node.min.mjs",
        "/bundles/2/manifest.json", "/bundles/-1/manifest.json", "/bundles/%C2%B2/manifest.json",
        "/bundles/00/manifest.json", "/bundles/%D9%A0/manifest.json", "/bundles/0/../../pyproject.toml",
        "/bundles/0/notes.txt", "/bundles/0/README.md", "/bundles/0/", "/bundles/x/manifest.json",
        "/bundles/0/manifest.json/x", f"/bundles/{'9' * 5000}/manifest.json", f"/page/{'a' * 300}",
    ],
)  # fmt: skip
def test_nothing_else_is_served(get: Client, path: str) -> None:
    response, body = get(path)
    assert response.status == 404 and body == b"404 Not Found\n"


def test_a_file_that_the_manifest_names_besides(
    serve: Callable[..., Client], bundle_copy: Path, replace_file: Callable[[Path, str, bytes], None]
) -> None:
    """A manifest comes from others, and so may name what happens to lie in the directory."""
    replace_file(bundle_copy, ".netrc", b"secret")
    assert serve(bundle_copy)("/bundles/0/.netrc")[0].status == 404


def test_a_sheet_of_examples(
    serve: Callable[..., Client], bundle_copy: Path, replace_file: Callable[[Path, str, bytes], None]
) -> None:
    """Is served if the manifest names it as such and it is a picture."""
    for name in ("examples.png", "notes.txt"):
        replace_file(bundle_copy, name, b"a sheet")
        path = bundle_copy / "manifest.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "examples": {"file": name, "names": ["one"]}}))
        response, body = serve(bundle_copy)(f"/bundles/0/{name}")
        if name == "examples.png":
            assert response.status == 200 and response.headers["Content-Type"] == "image/png" and body == b"a sheet"
        else:
            assert response.status == 404


@pytest.mark.parametrize("name", ["manifest.json", "complete.onnx"])
@pytest.mark.parametrize("kind", ["pipe", "link", "loop", "directory", "nothing", "longer", "device"])
def test_what_takes_the_place_of_a_file(
    serve: Callable[..., Client], bundle_copy: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """While the bundle is served: it is not opened, and nobody waits."""
    client = serve(bundle_copy)
    path = bundle_copy / name
    content = path.read_bytes()
    (tmp_path / "secret").write_bytes(content)
    path.unlink()
    {
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(tmp_path / "secret"),
        "loop": lambda: path.symlink_to(path),
        "directory": path.mkdir,
        "nothing": lambda: None,
        "longer": lambda: path.write_bytes(content + b" "),
        "device": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    is_another = name == "manifest.json" and kind == "longer"  # a manifest has no record of itself
    assert client(f"/bundles/0/{name}")[0].status == (200 if is_another else 404)
    assert client("/bundles/0/weights.safetensors")[0].status == 200


@pytest.mark.parametrize("kind", ["pipe", "link", "nothing"])
def test_what_takes_the_place_of_a_library(
    serve: Callable[..., Client], onnxruntime_web: Path, tmp_path: Path, kind: str
) -> None:
    dist = shutil.copytree(onnxruntime_web / "dist", tmp_path / "dist")
    client = serve(ort=dist)
    path = dist / ONNXRUNTIME_WEB[1]
    address = f"/ort/{path.name}"
    assert client(address)[0].status == 200
    path.rename(tmp_path / "secret")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "secret")
    assert client(address)[0].status == 404
    with pytest.raises(DeviceError, match=f"{path.name} is missing or not a regular file; install"):
        Site([], javascript_path(), dist)


def test_a_bundle_in_the_hubs_cache(serve: Callable[..., Client], tmp_path: Path) -> None:
    """Its files are links to blobs."""
    snapshot = tmp_path / "models--acme--demo" / "snapshots" / "0123"
    blobs = tmp_path / "models--acme--demo" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    demo = demo_bundle_path()
    for i, file in enumerate(sorted(demo.iterdir())):
        shutil.copyfile(file, blobs / f"{i:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{i:064x}")
    client = serve(snapshot)
    for name, kind in (("manifest.json", "application/json"), ("weights.safetensors", "application/octet-stream")):
        response, body = client(f"/bundles/0/{name}")
        assert response.status == 200 and body == (demo / name).read_bytes()
        assert response.headers["Content-Type"] == kind
    (blobs / "secret").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes((demo / "score.onnx").read_bytes())
    (snapshot / "score.onnx").unlink()
    (snapshot / "score.onnx").symlink_to("../../blobs/secret")
    assert client("/bundles/0/score.onnx")[0].status == 404
