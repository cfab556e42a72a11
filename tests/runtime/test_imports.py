"""What the runtime imports: nothing that an exporter or a test needs, and onnxruntime only to run."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import igpt_runtime

ROOT = Path(igpt_runtime.__file__).parent
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(ROOT)], "igpt_runtime."))
OPTIONAL = {"feature_files": {"pyarrow"}, "hub": {"huggingface_hub"}}  # imported where it is needed, by one module each
ALLOWED = {"numpy", "PIL", "onnxruntime", "click", "rich", "igpt_runtime"} | sys.stdlib_module_names
FORBIDDEN = ["torch", "onnx", "onnxscript", "onnx_ir", "safetensors", "transformers", "sklearn", "scipy", "igpt_export"]
FORBIDDEN += ["pyarrow", "matplotlib"]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_modules_are_found() -> None:
    assert {"igpt_runtime.cli", "igpt_runtime.engine.generate", "igpt_runtime.pictures.contact_sheet"} <= set(MODULES)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_a_module_imports_what_the_runtime_depends_on(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None
            imported.add(node.module.split(".")[0])
    assert imported <= ALLOWED | OPTIONAL.get(path.stem, set())


def test_every_module_imports_without_the_exporters_packages() -> None:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({FORBIDDEN}))"
    assert "ModuleNotFoundError" in run(f"{blocked}; import torch").stderr
    done = run(f"{blocked}; import {', '.join(MODULES)}, onnxruntime")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["complete", "--help"], ["--version"], ["sample", "-n", "0"]], ids=" ".join
)
def test_help_does_not_load_onnxruntime(arguments: list[str]) -> None:
    code = f"""
import sys
from igpt_runtime.cli import main
try:
    main({arguments})
except SystemExit:
    print("onnxruntime" in sys.modules)
"""
    assert run(code).stdout.splitlines()[-1] == "False"


def test_importing_the_package_does_not_load_onnxruntime() -> None:
    assert run("import igpt_runtime, sys; print('onnxruntime' in sys.modules)").stdout == "False\n"


@pytest.mark.parametrize("module", ["engine.session", "cli", "bench.fresh_process"])
def test_a_start_does_not_load_what_is_slow_to_import(module: str) -> None:
    code = f"import igpt_runtime.{module}, igpt_runtime.engine.session, sys; "
    code += "igpt_runtime.engine.session.import_onnxruntime()"
    assert run(f"{code}; print('importlib.metadata' in sys.modules)").stdout == "False\n"


def test_importing_the_package_loads_errors_only() -> None:
    """`igpt-run doctor` has to start where numpy or Pillow cannot be imported."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(['numpy', 'PIL', 'onnxruntime']))"
    done = run(f"{blocked}; import igpt_runtime; print([name for name in sys.modules if 'igpt_runtime.' in name])")
    assert (done.stdout, done.stderr) == ("['igpt_runtime.errors']\n", "")


def test_public_names() -> None:
    assert igpt_runtime.__all__ == sorted(igpt_runtime.__all__) == dir(igpt_runtime)
    code = "from igpt_runtime import *; print(sorted(n for n, v in globals().items() if n[0] != '_' and callable(v)))"
    assert run(code).stdout == f"{igpt_runtime.__all__}\n"
    with pytest.raises(AttributeError, match="module 'igpt_runtime' has no attribute 'nothing'"):
        igpt_runtime.nothing  # noqa: B018


def test_a_type_checker_sees_the_names_where_they_are() -> None:
    """It reads imports that are not run."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == igpt_runtime._MODULES
    assert sorted(imported) == igpt_runtime.__all__


@pytest.mark.parametrize("name", MODULES)
def test_public_names_of_modules_exist(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    names = getattr(module, "__all__", [])
    assert list(names) == sorted(names) and all(hasattr(module, public) for public in names)
