"""Running `igpt-run` in this process with the tiny bundle."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from igpt_runtime.cli import main


@pytest.fixture
def run(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs a command in this test's directory, with the tiny bundle, and expects an exit status."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object, status: int = 0) -> Result:
        result = CliRunner().invoke(main, [*map(str, arguments), "--model", str(tiny_bundle)])
        assert result.exit_code == status, result.output
        return result

    return invoke
