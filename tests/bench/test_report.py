"""The page shows what was measured, and the report says what it must about every kind of row."""

import copy
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from page_table import BENCHMARKS, with_table

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RECORD = HERE / "results/peers.json"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report", HERE / "report.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def system(name: str, variant: str, *, proxy: bool = False, in_full: bool = True) -> dict[str, Any]:
    completion = {"seconds": 12.34, "tokens_per_second": 331.6, "timed_steps": 512, "in_full": in_full}
    decode = {"tokens_per_second": 98.7, "step_seconds": 0.0101, "steps": 96}
    works = {"prefill": {"seconds": 0.512, "repeats": 5}, "decode1": decode, "complete8": completion}
    difference = None if proxy else {"logits": 2.4e-6, "greedy": 1.0}
    fields = {
        "key": f"{name}-{variant}",
        "name": name,
        "variant": variant,
        "proxy": proxy,
        "difference": difference,
        "medians": works,
    }
    return {**fields, "versions": {name: "1.2"}, "rounds": [{"works": works}] * 2}


def record(*systems: dict[str, Any]) -> dict[str, Any]:
    machine = {"cpu": "Example 9000", "cores": 2, "instructions": ["avx2"], "memory_gb": 8, "python": "3.11"}
    about = {"date": "2026-01-02", "machine": machine, "threads": 2, "model": "small, random weights, seed 0"}
    about["reference"] = "igpt-run-fp32"
    return {**about, "systems": list(systems)}


def test_the_page_shows_the_record(report: ModuleType) -> None:
    page = (BENCHMARKS / "peers.md").read_text()
    assert with_table(page, "peers", report.table(json.loads(RECORD.read_text()))) == page


def test_plot_is_there() -> None:
    assert RECORD.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_row_of_figures(report: ModuleType) -> None:
    lines = report.table(record(system("igpt-run", "fp32"), system("transformers", "eager"))).splitlines()
    assert lines[0] == "| | 8 completions | 32 completions | decode, 1 row | 8 rows | prefill | difference |"
    assert lines[2] == "| **igpt-run fp32** | 12.3 s (332) |  | 99 |  | 0.51 s | reference |"
    assert "| transformers eager | 12.3 s (332) |  | 99 |  | 0.51 s | 2e-06 |" in lines


def test_what_a_reader_must_know(report: ModuleType) -> None:
    text = report.table(record(system("igpt-run", "fp32"), system("llama.cpp", "q8_0", proxy=True)))
    assert "| llama.cpp q8_0 |" in text and "| proxy |" in text and "Proxy: " in text
    assert "~" not in text
    for fact in ("Example 9000", "2 threads", "2026-01-02", "2 rounds", "llama.cpp 1.2"):
        assert fact in text, fact


def test_extrapolation_is_marked(report: ModuleType) -> None:
    text = report.table(record(system("slow", "eager", in_full=False)))
    assert "~12.3 s (~332)" in text and "extrapolated" in text


@pytest.mark.parametrize("missing", ["skipped", "failed"])
def test_a_system_without_figures_is_named_with_its_reason(report: ModuleType, missing: str) -> None:
    absent = {"name": "OpenVINO", "variant": "int8", missing: "no wheel for this machine"}
    text = report.table(record(system("igpt-run", "fp32"), absent))
    assert f"OpenVINO int8 {missing}: no wheel for this machine." in text
    assert "| OpenVINO" not in text


def test_the_record_is_not_changed(report: ModuleType) -> None:
    measured = record(system("igpt-run", "fp32"))
    before = copy.deepcopy(measured)
    report.table(measured)
    assert measured == before


def test_a_page_without_markers_is_refused(report: ModuleType) -> None:
    with pytest.raises(ValueError, match="peers:begin"):
        with_table("nothing here", "peers", "")


def test_the_chart_says_what_it_shows(report: ModuleType) -> None:
    proxy, slow = system("llama.cpp", "q8_0", proxy=True), system("slow", "eager", in_full=False)
    figure = report.chart(record(system("igpt-run", "fp32"), proxy, slow))
    assert figure.get_suptitle() == "Completing half an image: speed of igpt-run and of other runtimes"
    assert [axes.get_title() for axes in figure.axes] == ["8 completions", "32 completions"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"tokens per second (more is better)"}
    assert {text.get_text() for text in figure.axes[0].texts} == {"332", "~332"}
    facts = ("Example 9000", "2 threads", "avx2", "2026-01-02", "small, random weights", "Proxy:", "~: extrapolated")
    for fact in facts:
        assert fact in figure.get_supxlabel(), fact
    plain = report.chart(record(system("igpt-run", "fp32"))).get_supxlabel()
    assert "Proxy" not in plain and "~" not in plain
