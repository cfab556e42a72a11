"""The oldest releases of ONNX Runtime that bundles claim to need compute them right; the newest has all other tests."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import engines  # noqa: E402
import matrix  # noqa: E402
import native_releases  # noqa: E402
import report  # noqa: E402
from native import clients  # noqa: E402

from igpt_export.card.onnxruntime_minimum import minimum  # noqa: E402

EXAMPLE = ROOT / "models" / "digits" / "examples" / "seven.png"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> matrix.Bundles:
    return matrix.golden_bundles(tmp_path_factory.mktemp("releases"))


@pytest.mark.slow
@pytest.mark.parametrize("profile", [matrix.FUSED, matrix.PORTABLE])
@pytest.mark.parametrize("precision", matrix.PRECISIONS)
def test_the_oldest_release(bundles: matrix.Bundles, precision: str, profile: str) -> None:
    release = minimum(profile, precision, precision).release
    assert release is not None
    assert matrix.manifest_of(bundles[precision, profile]).onnxruntime_minimum == release
    found = matrix.outcomes(functools.partial(engines.onnxruntime_release, release), bundles, precision)
    for graph, profiles in found.items():
        assert report.runs(profiles[profile], precision), (graph, profiles[profile])
        if isinstance(profiles[profile], dict):
            assert not profiles[profile].get(report.LARGE_SEEDS), graph


@pytest.mark.slow
@pytest.mark.parametrize("precision", matrix.PRECISIONS)
def test_commands_draw_the_same(tmp_path: Path, precision: str) -> None:
    """Alone, and several that share what is given."""
    release = minimum(matrix.FUSED, precision, precision).release
    assert release is not None
    bundle = matrix.export(tmp_path, ROOT / "models" / "digits", precision, matrix.FUSED, "digits")

    def run(*arguments: object, environment: dict[str, str] | None = None) -> str:
        command = [sys.executable, "-m", "igpt_runtime", *map(str, arguments), "--model", str(bundle)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout

    old = engines.with_release(release)
    for n in (1, 9):
        run("complete", EXAMPLE, "-n", n, "-o", "new.png", "--force")
        run("complete", EXAMPLE, "-n", n, "-o", "old.png", "--force", environment=old)
        assert (tmp_path / "old.png").read_bytes() == (tmp_path / "new.png").read_bytes()
    new, found = (
        json.loads(run("score", EXAMPLE, "--json", environment=environment))["nats_per_token"]
        for environment in (None, old)
    )
    assert found == pytest.approx(new, abs=1e-4 if precision == "fp32" else 0.01)


@pytest.mark.slow
def test_an_older_release_is_refused(bundle_of: Callable[[str, str], Path], picture: Path) -> None:
    """By the runtime, whatever it would have computed."""
    bundle = bundle_of("int8", "int8")
    command = [sys.executable, "-m", "igpt_runtime", "classify", str(picture), "--model", str(bundle)]
    environment = engines.with_release("1.25")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "needs ONNX Runtime 1.28 or newer, and 1.25." in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("language", clients.LANGUAGES)
def test_clients_in_other_languages(tmp_path: Path, language: str) -> None:
    """The oldest releases and the newest, as the record says."""
    checkpoint = ROOT / "models" / "digits"
    bundles = {
        precision: matrix.export(tmp_path, checkpoint, precision, matrix.FUSED, "digits")
        for precision in matrix.PRECISIONS
    }
    expected = json.loads(report.RECORD.read_text())["clients"][language]
    assert native_releases.outcomes(language, bundles) == expected


def test_the_newest_release_is_pinned() -> None:
    """All tests run in it."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    assert version("onnxruntime") == pins["onnxruntime"]
