"""The table of docs/benchmarks of runtimes is the record, and the record is what the runtimes do now."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import engines  # noqa: E402
import matrix  # noqa: E402
import replay  # noqa: E402
import report  # noqa: E402
from page_table import with_table  # noqa: E402

RECORD = json.loads(report.RECORD.read_text())
ROWS = {(row["runtime"], row["precision"]): row for row in RECORD["rows"]}


def statuses(graphs: matrix.Outcomes, precision: str) -> dict[str, dict[str, tuple[bool, bool]]]:
    """Whether each graph runs, and whether it takes large seeds."""
    return {
        graph: {
            profile: (
                report.runs(outcome, precision),
                isinstance(outcome, dict) and not outcome.get(report.LARGE_SEEDS),
            )
            for profile, outcome in profiles.items()
        }
        for graph, profiles in graphs.items()
    }


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> matrix.Bundles:
    return matrix.golden_bundles(tmp_path_factory.mktemp("matrix"))


def test_the_page_shows_the_record() -> None:
    page = report.PAGE.read_text()
    assert with_table(page, "matrix", report.table(RECORD)) == page
    assert with_table(page, "clients", report.clients_table(RECORD)) == page


def test_record_is_complete() -> None:
    assert set(ROWS) == {(name, precision) for name in engines.ENGINES for precision in matrix.PRECISIONS}
    for row in RECORD["rows"]:
        assert list(row["graphs"]) == list(matrix.GRAPHS)
        assert all(set(profiles) == set(matrix.PROFILES) for profiles in row["graphs"].values())
        assert not engines.ENGINES[row["runtime"]].timed or {"steps", "once"} <= set(row)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), ROWS)
def test_runtime_does_what_the_record_says(bundles: matrix.Bundles, name: str, precision: str) -> None:
    engine = engines.ENGINES[name]
    if engine.needs_browser and not (engines.CHROMIUM and engines.DRIVER):
        pytest.skip("needs Chromium with its driver")
    if engine.needs_node and not (shutil.which("node") and (engines.JS / "node_modules").is_dir()):
        pytest.skip("needs Node and `make js` before")
    found = matrix.outcomes(engine.open, bundles, precision)
    assert statuses(found, precision) == statuses(ROWS[name, precision]["graphs"], precision), found


@pytest.mark.slow
def test_cuda_kernels(bundles: matrix.Bundles) -> None:
    import stand_in

    if not stand_in.is_possible():
        pytest.skip("the stand-in for CUDA needs Linux and a C compiler")
    assert matrix.cuda_kernels(bundles["fp16", matrix.FUSED]) == RECORD["cuda"]["graphs"]


def outcome(**differences: float) -> dict[str, Any]:
    return {"fused": dict(differences), "portable": dict(differences)}


@pytest.mark.parametrize(
    ("profiles", "expected", "notes"),
    [
        (outcome(logits=1e-6, next_ids=0), "both", []),
        ({"fused": "no operator", "portable": {"tokens": 0}}, "portable<sup>1</sup>", ["fused: `no operator`"]),
        ({"fused": {"tokens": 0}, "portable": {"tokens": 3}}, "fused<sup>1</sup>", ["portable: other tokens"]),
        (outcome(nats=0.5), "no<sup>1</sup>", ["nats off by 0.5"]),
        ({"fused": "a", "portable": "b"}, "no<sup>1</sup><sup>2</sup>", ["fused: `a`", "portable: `b`"]),
        (
            {profile: {"tokens": 0, report.LARGE_SEEDS: 4} for profile in ("fused", "portable")},
            "both<sup>1</sup>",
            [f"other {report.LARGE_SEEDS}"],
        ),
    ],
)  # fmt: skip
def test_cell(profiles: dict[str, Any], expected: str, notes: list[str]) -> None:
    marks = report.Notes()
    assert report.cell(profiles, "fp32", marks) == expected
    assert marks.texts == notes


def test_a_step_of_the_int8_cache_is_no_failure() -> None:
    """Seen: WebGPU's logits of one machine were off by 4.6e-3 in int8; those of a wrong graph by 0.3."""
    assert report.runs({"logits": 5e-3, "next_ids": 0.0}, "int8")
    assert not report.runs({"logits": 5e-3, "next_ids": 0.0}, "fp32")
    for wrong in ({"logits": 0.3}, {"logits": float("nan")}, {"logits": 0.0, "next_ids": 1.0}, "no operator"):
        assert not report.runs(wrong, "int8")


def test_replay_tells_failures_from_other_results() -> None:
    bundle = replay.GOLDEN / "bundle"
    manifest = matrix.manifest_of(bundle)
    with engines.onnxruntime_python() as opened:

        def open_graph(graph: str) -> replay.Run:
            if graph == "score":
                raise RuntimeError("no such\n  operator")
            run = opened(bundle, graph)
            change = 1 if graph == "postprocess" else 0
            return lambda feeds: {name: value ^ change if change else value for name, value in run(feeds).items()}

        prefix = replay.prefix_of(manifest, opened(bundle, "prefill"))
        found = replay.differences(replay.replay(manifest, open_graph, prefix), replay.expected())
    assert found.pop("score") == "no such operator"
    assert found.pop("postprocess") == {"images": 2 * 8 * 8 * 3}
    assert len(found) == 7 and all(report.runs(outcome, "fp32") for outcome in found.values())
