"""The installed packages, and whether they are of the versions that this one declares."""

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata

from igpt_runtime.doctor.finding import BROKEN, OK, UNKNOWN, WARNING, Finding, one_line

_TOPIC = "packages"
_OWN = "igpt-onnx"
_NEEDED = {"numpy": "numpy", "pillow": "PIL", "click": "click", "rich": "rich"}  # distribution: its module
_OPTIONAL = {
    "torch": "igpt-export",
    "onnx": "igpt-export",
    "scikit-learn": "igpt-run probe",
    "matplotlib": "the plots of igpt-run probe",
    "pyarrow": "features as .parquet",
    "huggingface-hub": "models of the Hugging Face hub",
    "tensorflow": "checkpoints as OpenAI published them",
    "tensorflow-cpu": "checkpoints as OpenAI published them",
}
_ONNXRUNTIME = re.compile(r"onnxruntime|ort\b", re.IGNORECASE)
Version = tuple[int, ...]


@dataclass(frozen=True)
class Minimums:
    """What the package declares."""

    python: Version | None = None  # None if it is not known
    packages: dict[str, str] = field(default_factory=dict)  # distribution, in lower case: its lowest version
    extras: dict[str, str] = field(default_factory=dict)  # distribution: "[a,b]", what else is wanted of it, or ""

    def requirement(self, name: str) -> str:
        """What to tell pip to install."""
        return f"'{name}{self.extras.get(name, '')}>={self.packages[name]}'" if name in self.packages else name

    def is_met(self, name: str, version: str) -> bool:
        """Whether a version of a distribution is high enough."""
        return name not in self.packages or release(version) >= release(self.packages[name])


def minimums() -> Minimums:
    """As the metadata of the installed package says; empty where it runs from a source tree that is not installed."""
    try:
        declared = metadata.metadata(_OWN)
    except metadata.PackageNotFoundError:
        return Minimums()
    found, extras = {}, {}
    for requirement in declared.get_all("Requires-Dist") or []:
        match = re.match(r"([\w.-]+)(\[[\w,-]+\])?\s*>=\s*([\d.]+)", requirement)
        if match:
            found[match[1].lower()], extras[match[1].lower()] = match[3], match[2] or ""
    python = re.search(r"[\d.]+", declared["Requires-Python"] or "")
    return Minimums(None if python is None else release(python[0]), found, extras)


def release(version: str) -> Version:
    """The numbers that a version begins with."""
    match = re.match(r"\d+(\.\d+)*", version)
    return () if match is None else tuple(map(int, match[0].split(".")))


def installed(name: str) -> str | None:
    """Version of a distribution, "unknown" if it does not tell; None if there is none."""
    try:
        return str(metadata.version(name) or "unknown")
    except metadata.PackageNotFoundError:
        return None


def onnxruntimes() -> dict[str, str]:
    """By distribution, the versions of all that bring the module `onnxruntime`, of which there can be one."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = str(distribution.metadata["Name"])
        files = distribution.files or [] if _ONNXRUNTIME.match(name) else []
        if any(file.as_posix() == "onnxruntime/__init__.py" for file in files):
            found.setdefault(name, str(distribution.version))  # of two places the first is imported
    return found


def packages(declared: Minimums) -> Iterator[Finding]:
    """All but ONNX Runtime; heavy ones are not imported."""
    own = installed(_OWN)
    if own is None:
        found = "not installed: the versions that it needs are not known"
        yield Finding(_TOPIC, _OWN, UNKNOWN, found, "run pip install in the directory of its pyproject.toml")
    else:
        yield Finding(_TOPIC, _OWN, OK, own)
    for name, module in _NEEDED.items():
        yield _needed(name, module, declared)
    yield onnxruntime(declared)
    for name, use in _OPTIONAL.items():
        version = installed(name)
        if version is None:
            continue
        if declared.is_met(name, version):
            yield Finding(_TOPIC, name, OK, f"{version}, for {use}")
        else:
            found = f"{version}, too old for {use}"
            yield Finding(_TOPIC, name, WARNING, found, f"run: pip install {declared.requirement(name)}")


def _needed(name: str, module: str, declared: Minimums) -> Finding:
    version = installed(name)
    install = f"run: pip install {declared.requirement(name)}"
    if version is not None and not declared.is_met(name, version):
        return Finding(_TOPIC, name, BROKEN, f"{version} is too old", install)
    try:
        importlib.import_module(module)
    except Exception as error:  # an extension module of another version may raise anything
        if version is None:
            return Finding(_TOPIC, name, BROKEN, "not installed", install)
        found = f"{version} cannot be imported ({type(error).__name__}: {one_line(str(error))})"
        return Finding(_TOPIC, name, BROKEN, found, install.replace("install", "install --force-reinstall", 1))
    return Finding(_TOPIC, name, OK, version or "of unknown version")


def onnxruntime(declared: Minimums) -> Finding:
    """Which of its packages is there: exactly one has to be. Whether it runs is another question."""
    found = onnxruntimes()
    default = declared.requirement("onnxruntime")
    if len(found) > 1:
        shown = " and ".join(f"{name} {version}" for name, version in sorted(found.items()))
        gpu = declared.requirement("onnxruntime-gpu")
        remedy = f"run: pip uninstall -y {' '.join(sorted(found))}; then: pip install {default}, or {gpu} for CUDA"
        return Finding(_TOPIC, "onnxruntime", BROKEN, f"{shown}, which overwrite each other", remedy)
    for name, version in found.items():
        if declared.is_met(name, version):
            return Finding(_TOPIC, name, OK, version)
        return Finding(_TOPIC, name, BROKEN, f"{version} is too old", f"run: pip install {declared.requirement(name)}")
    module = importlib.util.find_spec("onnxruntime")
    if module is None:
        gpu = declared.requirement("onnxruntime-gpu")
        remedy = f"run: pip install {default}, or {gpu} for CUDA"
        return Finding(_TOPIC, "onnxruntime", BROKEN, "not installed", remedy)
    place = module.origin or "a directory without __init__.py"
    return Finding(_TOPIC, "onnxruntime", UNKNOWN, f"not from a package: {place}", f"run: pip install {default}")
