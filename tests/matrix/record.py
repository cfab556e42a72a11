"""Runs every graph in every engine, times completions, and writes what came out: `record.json` and a table of the docs.

Usage: python tests/matrix/record.py [--bundles DIRECTORY] [--runtime NAME ...]. Needs `make js` before,
Chromium with its driver, and a C compiler; takes about a quarter of an hour. The bundles are exported into the
directory, unless they are there.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "bench")]

import engines  # noqa: E402
import matrix  # noqa: E402
import native_releases  # noqa: E402
import report  # noqa: E402
import stand_in  # noqa: E402
from complete_request import complete_request  # noqa: E402
from native import clients  # noqa: E402
from peers import machine  # noqa: E402
from PIL import Image  # noqa: E402

from igpt_runtime.bundle import graph_io  # noqa: E402
from igpt_runtime.engine.kv_cache import new_cache  # noqa: E402
from igpt_runtime.engine.random import uniforms  # noqa: E402

DIGITS = ROOT / "models" / "digits"
PICTURE = DIGITS / "examples" / "seven.png"
SEED, N = 1, 8


def speeds(name: str, bundles: matrix.Bundles, precision: str, graphs: matrix.Outcomes) -> dict[str, Any]:
    """Tokens a second, completing half a digit 8 times: step by step, and by one call of `complete`."""
    engine = engines.ENGINES[name]
    drawing = (graph_io.PREPROCESS, graph_io.PREFILL, graph_io.DECODE, graph_io.COMPLETE)
    fused = all(report.runs(graphs[graph][matrix.FUSED], precision) for graph in drawing)
    profile = matrix.FUSED if fused else matrix.PORTABLE
    bundle = bundles[precision, profile]
    side = matrix.manifest_of(bundle).image_format.height
    image = np.asarray(Image.open(PICTURE).convert("RGB"))
    request = {"image": image, "keep_rows": side // 2, "n": N, "seed": SEED}
    drawn = (side - side // 2) * side * N
    reference = bundles[precision, matrix.FUSED]
    _, wanted = engines.client_in_python(reference, request)
    found: dict[str, Any] = {"profile": profile, "logits_differ_by": _difference(engine, bundle, reference, wanted)}
    draws: dict[str, Callable[[], engines.Drawn]] = {
        "steps": lambda: engine.client(bundle, request) if engine.client else _plain_loop(engine, bundle, request),
        "once": lambda: _once(engine, bundle, request),
    }
    for way, draw in draws.items():
        seconds, tokens = draw()
        differing = int((np.array(tokens) != np.array(wanted)).sum())
        found[way] = {"tokens_per_second": drawn / seconds, "seconds": seconds, "differing_tokens": differing}
        print(f"  {way}: {drawn / seconds:.0f} tokens/s, {differing} of {drawn} tokens differ", flush=True)
    return found


def _difference(engine: engines.Engine, bundle: Path, reference: Path, rows: list[list[int]]) -> float:
    """The largest difference between logits of the pictures drawn, from those of ONNX Runtime in Python."""
    manifest = matrix.manifest_of(reference)
    fed = {graph_io.INPUT_IDS: np.array([[manifest.config.sos, *row[:-1]] for row in rows], np.int64)}
    logits = []
    for opened, path in ((engines.onnxruntime_python, reference), (engine.open, bundle)):
        with opened() as open_graph:
            logits.append(open_graph(path, graph_io.PREFILL)(fed)[graph_io.LOGITS])
    return float(np.abs(logits[1] - logits[0]).max())


def _once(engine: engines.Engine, bundle: Path, request: dict[str, Any]) -> engines.Drawn:
    with engine.open() as open_graph:
        run = open_graph(bundle, graph_io.COMPLETE)
        inputs = complete_request(**request)
        run(inputs)
        return engines.timed(lambda: run(inputs)["tokens"].tolist())


def _plain_loop(engine: engines.Engine, bundle: Path, request: dict[str, Any]) -> engines.Drawn:
    """Prefill and decode as one writes them with the engine's own interface: the whole cache in and out at a step."""
    manifest = matrix.manifest_of(bundle)
    kept = request["keep_rows"] * manifest.image_format.width
    with engine.open() as open_graph:
        preprocess, prefill, decode = (
            open_graph(bundle, name) for name in (graph_io.PREPROCESS, graph_io.PREFILL, graph_io.DECODE)
        )

        def draw() -> list[list[int]]:
            given = preprocess({graph_io.IMAGE: request["image"]})[graph_io.TOKENS][:kept]
            fed = np.concatenate([[manifest.config.sos], given[:-1]]).astype(np.int64)
            outputs = prefill({graph_io.INPUT_IDS: fed[None]})
            cache = new_cache(manifest, N, [outputs[name] for name in graph_io.present_names(manifest.config)])
            rows = np.repeat(given[None], N, axis=0)
            token = rows[:, -1:]
            positions = range(kept, manifest.config.n_positions)
            for position, draws in zip(positions, uniforms(SEED, range(N), positions).T.copy(), strict=True):
                sampling = {
                    graph_io.UNIFORM: draws, graph_io.TEMPERATURE: np.array(1, np.float32),
                    graph_io.TOP_K: np.array(0, np.int64), graph_io.TOP_P: np.array(1, np.float32),
                }  # fmt: skip
                token = matrix.replay.advance(decode, cache, token, position, sampling)[graph_io.NEXT_IDS]
                rows = np.concatenate([rows, token], 1)
            drawn: list[list[int]] = rows.tolist()
            return drawn

        draw()
        return engines.timed(draw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundles", type=Path, default=ROOT / "build" / "matrix")
    parser.add_argument("--runtime", action="append", choices=engines.ENGINES, help="only this one's rows; repeatable")
    parser.add_argument("--clients", action="store_true", help="only the table of clients in other languages")
    options = parser.parse_args()
    chosen = options.runtime or list(engines.ENGINES)
    before = json.loads(report.RECORD.read_text())
    kept = {row["runtime"]: [r for r in before["rows"] if r["runtime"] == row["runtime"]] for row in before["rows"]}
    options.bundles.mkdir(parents=True, exist_ok=True)
    bundles = matrix.golden_bundles(options.bundles)
    digits = {
        (precision, profile): matrix.export(options.bundles, DIGITS, precision, profile, "digits")
        for precision in matrix.PRECISIONS
        for profile in (matrix.FUSED, matrix.PORTABLE)
    }
    if options.clients:
        fused = {precision: digits[precision, matrix.FUSED] for precision in matrix.PRECISIONS}
        found = {language: native_releases.outcomes(language, fused) for language in clients.LANGUAGES}
        write({**before, "clients": found})
        return
    kernels = matrix.cuda_kernels(bundles["fp16", matrix.FUSED])
    rows = []
    for name, engine in engines.ENGINES.items():
        if name not in chosen:
            rows += kept[name]
            continue
        for precision in matrix.PRECISIONS:
            print(f"{name}, {precision}", flush=True)
            graphs = matrix.outcomes(engine.open, bundles, precision)
            row = {"runtime": name, "version": engine.version(), "precision": precision, "graphs": graphs}
            if engine.timed:
                row |= speeds(name, digits, precision, graphs)
            rows.append(row)
    record = {
        **before,
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "rows": rows,
        "cuda": {"version": stand_in.package_version(), "graphs": kernels},
    }
    write(record)


def write(record: dict[str, Any]) -> None:
    """The record and its page."""
    report.RECORD.write_text(json.dumps(record, indent=1) + "\n")
    report.write_page(record)


if __name__ == "__main__":
    main()
