"""The README is true: its commands parse, its Python runs, its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

import igpt_export.cli
import igpt_runtime.cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), ROOT / "runtime/SPEC.md", ROOT / "models/demo/README.md"])
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [
    line.split("#")[0].split("|")[-1].split(">")[0].strip()
    for block in blocks("sh")
    for line in block.splitlines()
    if "igpt-run " in line or "igpt-export " in line
]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str) -> None:
    program, *arguments = shlex.split(line)
    main: click.Command = {"igpt-run": igpt_runtime.cli.main, "igpt-export": igpt_export.cli.main}[program]
    command, context = main, None
    while isinstance(command, click.Group):
        context = command.make_context(program, arguments[:1], parent=context)
        program, found, _ = command.resolve_command(context, arguments[:1])
        assert found is not None
        command, arguments = found, arguments[1:]
    command.make_context(program, arguments, parent=context)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = {t for path in DOCUMENTS for t in re.findall(r"\bmake ([a-z-]+)", path.read_text())}
    assert mentioned >= {"demo", "test"}
    assert {t for t in mentioned if f"`make {t}" in "".join(p.read_text() for p in DOCUMENTS)} <= targets


def test_python_runs(tmp_path: Path) -> None:
    ours, bare = blocks("python")
    for name in ("models", "runtime"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert len(_run(ours, tmp_path).splitlines()) == 128
    assert (tmp_path / "completed.png").is_file()
    assert _run(bare, tmp_path) == "" and "igpt" not in bare.replace("igpt_runtime/demo", "")
    assert len([line for line in bare.splitlines() if line]) <= 10
    arguments = ["complete", "models/demo/examples/seven.png", "--seed", "1", "-n", "1", "--separate", "--scale", "1"]
    assert CliRunner().invoke(igpt_runtime.cli.main, [*arguments, "-o", str(tmp_path / "ours.png")]).exit_code == 0
    assert Image.open(tmp_path / "bare.png").tobytes() == Image.open(tmp_path / "ours-1.png").tobytes()


def _run(block: str, directory: Path) -> str:
    done = subprocess.run([sys.executable, "-c", block], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
