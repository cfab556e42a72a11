"""The page shows the sizes that were measured, and the table says what it must about every kind of row."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from page_table import BENCHMARKS, with_table

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RECORD = HERE / "results/sizes.json"
WORKS = {
    "prefill": {"seconds": 1.5},
    "decode1": {"tokens_per_second": 12.34},
    "decode8": {"tokens_per_second": 56.78, "step_seconds": 0.5},
}
EXPORT = {
    "seconds": 61.2, "stages": {"tracing graphs": 40.4}, "peak": 1.2e9, "anonymous": 0.9e9, "bundle_bytes": 3e8,
}  # fmt: skip
COMPLETION = {"n": 8, "start_seconds": 2.34, "seconds": 96.0, "peak": 3e9, "anonymous": 1.1e9, "ideal_memory": 1e9}


@pytest.fixture(scope="module")
def sizes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sizes", HERE / "sizes.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_record(sizes: ModuleType) -> None:
    page, record = (BENCHMARKS / "sizes.md").read_text(), json.loads(RECORD.read_text())
    assert with_table(page, "sizes", sizes.table(record)) == page


def test_a_table(sizes: ModuleType) -> None:
    ours = {"works": WORKS, "export": EXPORT, "completion": COMPLETION, "difference": {"logits": 2.4e-6}}
    alone = {**ours, "completion": {**COMPLETION, "n": 1}, "difference": None, "disturbed": 0.31}
    theirs: dict[str, Any] = {"works": WORKS, "peak": 5e9, "anonymous": 4e9}
    record = {
        "date": "2026-01-02",
        "machine": {"cpu": "Example 9000", "cores": 2},
        "rows": {"small transformers": theirs, "xl int4": alone, "small fp32": ours, "large int8": {"export": EXPORT}},
    }
    head, _, *lines = sizes.table(record).splitlines()
    assert lines[0] == (
        "| small fp32 | 61 s | 40 s | 0.90 GB (1.20) | 0.30 GB | 2.3 s | 1.50 s | 12.3 | 57 | 96 s | 5.0 | "
        "1.10 GB (3.00) | 1.10 | 2e-06 |"
    )
    assert lines[1] == (
        "| small transformers |  |  |  |  |  | 1.50 s | 12.3 | 57 | ~258 s | ~1.9 | 4.00 GB (5.00) |  | reference |"
    )
    assert lines[2] == "| large int8 | 61 s | 40 s | 0.90 GB (1.20) | 0.30 GB |" + "  |" * 9
    assert "| 1 in 96 s | 0.6 |" in lines[3] and lines[3].endswith("| 1.10 |  |")
    assert {line.count("|") for line in (head, *lines[:4])} == {head.count("|")}
    assert lines[5] == (
        "Random weights, seed 0; Example 9000, 2 cores, 2026-01-02. "
        "xl int4: other programs used 31% of the machine during a part of it."
    )


def test_stages_of_an_export(sizes: ModuleType) -> None:
    said = [(0.1, "starting: loading torch ..."), (1.0, "exporting: writing weights ..."),
            (1.5, "exporting: writing weights: 5 of 45 MB ..."), (3.0, "exporting: tracing graphs ...")]  # fmt: skip
    done = sizes.Run(10.0, 0, 0, "", said)
    assert sizes.stage_seconds(done) == {"writing weights": 2.0, "tracing graphs": 7.0}


def test_a_process_is_watched(sizes: ModuleType) -> None:
    code = "import sys, time; a = bytearray(200 << 20); print('out'); print('said', file=sys.stderr); time.sleep(0.2)"
    done = sizes.run([sizes.sys.executable, "-c", code])
    assert done.output == "out\n" and done.said[0][1] == "said"
    assert 200 << 20 < done.anonymous < 300 << 20 and done.peak >= 200 << 20
    with pytest.raises(RuntimeError, match="no such thing"):
        sizes.run([sizes.sys.executable, "-c", "import sys; sys.exit('no such thing')"])
