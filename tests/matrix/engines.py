"""What the matrix runs graphs in: each engine opens the graphs of a bundle for Python."""

import base64
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from replay import Arrays, Run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
JS = ROOT / "runtime" / "js"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
HEADLESS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage")

EXTENSIONS = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", "": "text/plain"}
REPEATS = 5  # of what is timed
PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}  # the plain distribution, whatever the bundle recommends
PLAIN_IN_JS = {"temperature": 1, "topK": 0, "topP": 1}

Drawn = tuple[float, list[list[int]]]  # seconds, and the tokens of each picture
Open = Callable[[Path, str], Run]  # bundle and graph


@contextmanager
def onnxruntime_python() -> Iterator[Open]:
    """ONNX Runtime's CPU provider."""
    import onnxruntime

    def open_graph(bundle: Path, graph: str) -> Run:
        session = onnxruntime.InferenceSession(bundle / f"{graph}.onnx", providers=["CPUExecutionProvider"])
        outputs = [output.name for output in session.get_outputs()]
        return lambda feeds: dict(zip(outputs, session.run(None, dict(feeds)), strict=True))

    yield open_graph


@contextmanager
def openvino() -> Iterator[Open]:
    """OpenVINO's CPU plugin, which reads the ONNX files; in float32, as it may choose bfloat16."""
    from openvino import Core

    core = Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def open_graph(bundle: Path, graph: str) -> Run:
        compiled = core.compile_model(core.read_model(bundle / f"{graph}.onnx"), "CPU")

        def run(feeds: Mapping[str, Any]) -> Arrays:
            results = compiled(dict(feeds))
            return {name: np.array(value) for output, value in results.items() for name in output.names}

        return run

    yield open_graph


@contextmanager
def onnx_reference() -> Iterator[Open]:
    """The evaluator in Python that comes with onnx, without kernels for the fused operators."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    def open_graph(bundle: Path, graph: str) -> Run:
        model = onnx.load(bundle / f"{graph}.onnx")
        evaluator = ReferenceEvaluator(model)
        return lambda feeds: dict(zip(evaluator.output_names, evaluator.run(None, dict(feeds)), strict=True))

    yield open_graph


@contextmanager
def _served(command: list[str], environment: Mapping[str, str] | None = None) -> Iterator[tuple[Open, Any]]:
    """Graphs in another process, which answers a line for each; and the lines that it prints."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdin and process.stdout

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the process ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    with process:
        yield (lambda bundle, graph: _remote(ask, str(bundle), graph)), process.stdout
        process.stdin.close()


@contextmanager
def _node(host: str) -> Iterator[Open]:
    with _served(["node", str(HERE / "serve.mjs"), host]) as (open_graph, _):
        yield open_graph


def installed_release(release: str) -> Path:
    """A directory with a release of ONNX Runtime like 1.25, installed once."""
    directory = ROOT / "build" / f"onnxruntime-{release}"
    if not directory.is_dir():
        partial = directory.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(partial)]
        subprocess.run([*pip, f"onnxruntime=={release}.*"], check=True)
        partial.rename(directory)
    return directory


def with_release(release: str) -> dict[str, str]:
    """The environment in which Python imports that release."""
    paths = [str(installed_release(release)), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "ORT_DISABLE_TELEMETRY": "1"}


@contextmanager
def onnxruntime_release(release: str) -> Iterator[Open]:
    """ONNX Runtime's CPU provider, of another release than the one that is installed."""
    with _served([sys.executable, str(HERE / "serve.py")], with_release(release)) as (open_graph, lines):
        found = json.loads(lines.readline())["version"]
        assert found.startswith(f"{release}."), found
        yield open_graph


def node() -> Any:
    """onnxruntime-node."""
    return _node("node")


def wasm() -> Any:
    """onnxruntime-web's WebAssembly under Node, one thread."""
    return _node("wasm")


@contextmanager
def browser(bundles: Mapping[str, Path], flags: tuple[str, ...] = ()) -> Iterator[Any]:
    """A Chromium driver on a page with shared memory, from where /repo/ and /NAME/ of bundles can be fetched."""
    from selenium import webdriver

    class Handler(http.server.SimpleHTTPRequestHandler):
        extensions_map = EXTENSIONS

        def translate_path(self, path: str) -> str:
            first, _, rest = path.split("?")[0].lstrip("/").partition("/")
            root = ROOT if first == "repo" else bundles.get(first, Path("/nowhere"))
            return str(root / rest)

        def end_headers(self) -> None:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*HEADLESS, *flags):
        options.add_argument(flag)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        try:
            driver.set_script_timeout(600)
            driver.get(f"http://127.0.0.1:{server.server_port}/repo/LICENSE")
            yield driver
        finally:
            driver.quit()
            server.shutdown()


@contextmanager
def chromium(provider: str = "wasm", flags: tuple[str, ...] = ("--disable-gpu",)) -> Iterator[Open]:
    """onnxruntime-web in a browser, with threads."""
    roots: dict[str, Path] = {}
    with browser(roots, flags) as driver:
        loaded = driver.execute_async_script(
            """
            const [provider, done] = arguments;
            (async () => {
              const dist = `${location.origin}/repo/runtime/js/node_modules/onnxruntime-web/dist/`;
              const ort = await import(`${dist}ort.${provider}.min.mjs`);
              const { graphsOf, fetchGraph } = await import(`${location.origin}/repo/tests/matrix/graphs.mjs`);
              ort.env.wasm.wasmPaths = dist;
              globalThis.runGraph = graphsOf(ort, (bundle, graph) => fetchGraph(ort, bundle, graph, [provider]));
              return crossOriginIsolated;
            })().then(done, (error) => done(String(error)));
            """,
            provider,
        )
        assert loaded is True, loaded

        def ask(request: dict[str, Any]) -> dict[str, Any]:
            answer: dict[str, Any] = driver.execute_async_script(
                """
                const [request, done] = arguments;
                const failed = (error) => done({ error: String(error.message ?? error) });
                runGraph(request).then((outputs) => done({ outputs }), failed);
                """,
                request,
            )
            return answer

        def open_graph(bundle: Path, graph: str) -> Run:
            root = next((name for name, path in roots.items() if path == bundle), f"bundle-{len(roots)}")
            roots[root] = bundle
            return _remote(ask, f"/{root}", graph)

        yield open_graph


def webgpu() -> Any:
    """onnxruntime-web's WebGPU provider on a GPU that is computed: SwiftShader, in Chromium."""
    return chromium("webgpu", SOFTWARE_GPU)


def _remote(ask: Callable[[dict[str, Any]], dict[str, Any]], bundle: str, graph: str) -> Run:
    """A graph behind graphs.mjs."""

    def run(feeds: Mapping[str, Any]) -> Arrays:
        answer = ask({"bundle": bundle, "graph": graph, "feeds": {k: _encoded(v) for k, v in feeds.items()}})
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return {name: _decoded(tensor) for name, tensor in answer["outputs"].items()}

    return run


def _encoded(value: Any) -> dict[str, Any]:
    array = np.asarray(value)
    data = base64.b64encode(array.tobytes()).decode()
    return {"type": array.dtype.name, "dims": list(array.shape), "data": data}


def _decoded(tensor: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(tensor["data"]), tensor["type"]).reshape(tensor["dims"])


def client_in_python(bundle: Path, request: Mapping[str, Any]) -> Drawn:
    """`igpt-run`'s own loop."""
    from PIL import Image

    from igpt_runtime import GenerationOptions, generate_all, open_session, tokens_of

    session = open_session(bundle, device="cpu")
    picture = Image.fromarray(request["image"])
    options = GenerationOptions(request["n"], request["seed"], **PLAIN)

    def draw() -> list[list[int]]:
        primer = tokens_of(session, picture)[: request["keep_rows"] * session.manifest.image_format.width]
        drawn: list[list[int]] = generate_all(session, primer, options).tolist()
        return drawn

    draw()
    return timed(draw)


def client_in_node(bundle: Path, request: Mapping[str, Any], host: str = "node") -> Drawn:
    """runtime/js under Node."""
    height, width, _ = request["image"].shape
    image = {"height": height, "width": width, "data": base64.b64encode(request["image"].tobytes()).decode()}
    asked = {"seed": str(request["seed"]), "n": request["n"], "keepRows": request["keep_rows"], **PLAIN_IN_JS}
    text = json.dumps({"image": image, "requests": [asked] * (1 + REPEATS)})
    command = ["node", str(JS / "test" / "drawn.mjs"), host, str(bundle)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)[1:]  # the first warms up
    return min(result["seconds"] for result in results), results[0]["loop"]


def client_in_wasm(bundle: Path, request: Mapping[str, Any]) -> Drawn:
    """runtime/js in WebAssembly under Node."""
    return client_in_node(bundle, request, "wasm")


def client_in_chromium(bundle: Path, request: Mapping[str, Any]) -> Drawn:
    """runtime/js in a browser."""
    with browser({"bundle": bundle}, ("--disable-gpu",)) as driver:
        answer = driver.execute_async_script(
            """
            const [{ height, width, data, n, keepRows, seed, plain, repeats }, done] = arguments;
            (async () => {
              const dist = `${location.origin}/repo/runtime/js/node_modules/onnxruntime-web/dist/`;
              const ort = await import(`${dist}ort.wasm.min.mjs`);
              ort.env.wasm.wasmPaths = dist;
              const { openBundle } = await import(`${location.origin}/repo/runtime/js/web.mjs`);
              const model = await openBundle(`${location.origin}/bundle/`, { ort });
              const image = { height, width, data: Uint8Array.from(data) };
              let [seconds, tokens] = [Infinity];
              for (let i = 0; i <= repeats; i++) {
                const start = performance.now();
                tokens = await model.complete(image, { n, keepRows, seed: BigInt(seed), ...plain }).tokens();
                if (i > 0) seconds = Math.min(seconds, (performance.now() - start) / 1000);
              }
              return { seconds, tokens: tokens.map((row) => [...row]) };
            })().then(done, (error) => done({ error: String(error) }));
            """,
            {
                "height": request["image"].shape[0],
                "width": request["image"].shape[1],
                "data": request["image"].ravel().tolist(),
                "n": request["n"],
                "keepRows": request["keep_rows"],
                "seed": str(request["seed"]),
                "plain": PLAIN_IN_JS,
                "repeats": REPEATS,
            },
        )
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["seconds"], answer["tokens"]


def timed(draw: Callable[[], list[list[int]]]) -> Drawn:
    """The least seconds of a few calls, and what the last one returned."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        tokens = draw()
        seconds.append(time.perf_counter() - start)
    return min(seconds), tokens


def _onnxruntime_js(package: str) -> str:
    found: str = json.loads((JS / "node_modules" / package / "package.json").read_text())["version"]
    return found


@dataclass(frozen=True)
class Engine:
    """Something that runs graphs."""

    open: Callable[[], Any]  # a context manager of an Open
    version: Callable[[], str]
    # Draws completions step by step with this project's own loop for it, if there is one.
    client: Callable[[Path, Mapping[str, Any]], Drawn] | None = None
    timed: bool = True
    needs_node: bool = False
    needs_browser: bool = False


def _javascript(package: str, *arguments: Any, **settings: bool) -> Engine:
    return Engine(arguments[0], lambda: _onnxruntime_js(package), *arguments[1:], needs_node=True, **settings)


ENGINES = {
    "ONNX Runtime, Python": Engine(onnxruntime_python, lambda: version("onnxruntime"), client_in_python),
    "onnxruntime-node": _javascript("onnxruntime-node", node, client_in_node),
    "onnxruntime-web under Node": _javascript("onnxruntime-web", wasm, client_in_wasm),
    "onnxruntime-web in Chromium": _javascript("onnxruntime-web", chromium, client_in_chromium, needs_browser=True),
    "onnxruntime-web, WebGPU": _javascript("onnxruntime-web", webgpu, timed=False, needs_browser=True),
    "OpenVINO": Engine(openvino, lambda: version("openvino")),
    "ONNX reference evaluator": Engine(onnx_reference, lambda: version("onnx")),
}
