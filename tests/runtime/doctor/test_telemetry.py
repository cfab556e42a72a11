"""What is said of telemetry, compared with what ONNX Runtime does."""

import importlib.util
from pathlib import Path

import pytest

from igpt_runtime.doctor import telemetry
from igpt_runtime.doctor.finding import OK, UNKNOWN, WARNING, Finding
from igpt_runtime.doctor.start_provider import start_provider
from igpt_runtime.doctor.telemetry import SWITCH, VARIABLES
from igpt_runtime.privacy import HUB

NOWHERE = "http://127.0.0.1:9"  # no proxy listens there, so that nothing is sent


def of_onnxruntime(environment: dict[str, str] | None) -> Finding:
    return next(telemetry.telemetry(environment))


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({}, False), ({SWITCH: "1"}, False), ({SWITCH: "On"}, False), ({SWITCH: "2"}, False), ({SWITCH: ""}, False),
        ({SWITCH: "0"}, True), ({SWITCH: " No"}, True), ({SWITCH: "0", "CI": "false"}, True),
        ({SWITCH: "0", "CI": "true"}, False), ({SWITCH: "0", "GITHUB_ACTIONS": "1"}, False),
    ],
    ids=str,
)  # fmt: skip
def test_it_is_as_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], on: bool) -> None:
    """It is on only if the user says so. ONNX Runtime then writes an identifier of the device."""
    for name in (*VARIABLES, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path), "https_proxy": NOWHERE, "HTTPS_PROXY": NOWHERE, **variables}.items():
        monkeypatch.setenv(name, value)
    outcome = start_provider("cpu", None)
    assert outcome.error is None
    finding = of_onnxruntime(outcome.said["environment"])
    assert bool(list(tmp_path.rglob("deviceid"))) == on
    assert (finding.status, finding.found.split(":")[0]) == ((WARNING, "on") if on else (OK, "off"))


def test_on() -> None:
    finding = of_onnxruntime({})
    assert finding.status == WARNING and finding.found.startswith("on: ")
    assert finding.remedy == f"to send none, unset {SWITCH}"


def test_who_has_switched_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "yes")
    assert of_onnxruntime({SWITCH: "yes"}).found == f"off: {SWITCH} is yes"
    monkeypatch.delenv(SWITCH)
    assert of_onnxruntime({SWITCH: "1"}).found == f"off: igpt-run sets {SWITCH}=1"


def test_a_build_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_COLLECTOR", "collector.of.another.build")
    monkeypatch.setattr("sys.platform", "linux")
    assert of_onnxruntime({}) == Finding("telemetry", "ONNX Runtime", OK, "off: this build cannot send any")
    monkeypatch.setattr("sys.platform", "win32")
    assert of_onnxruntime({}).status == UNKNOWN


def test_what_cannot_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_onnxruntime(None).status == UNKNOWN
    monkeypatch.setattr(telemetry, "SWITCH", "A_SWITCH_OF_ANOTHER_BUILD")
    assert of_onnxruntime({}).status == UNKNOWN
    monkeypatch.setattr(telemetry, "_LIBRARIES", ("*.nothing",))
    assert "libraries are not found" in of_onnxruntime({}).found


@pytest.mark.parametrize("name", ["DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_OFFLINE"])
def test_of_the_hub(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable in (HUB, "DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    _, finding = telemetry.telemetry({})
    assert finding.found == f"off: igpt-run sets {HUB}=1"
    monkeypatch.setenv(HUB, "0")
    _, finding = telemetry.telemetry({})
    assert finding.found.startswith("downloads name the versions of Python and torch")
    monkeypatch.setenv(name, "true")
    _, finding = telemetry.telemetry({})
    assert finding.found == f"off: {name} is true"


def test_a_hub_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else there(name))
    assert [finding.name for finding in telemetry.telemetry({})] == ["ONNX Runtime"]
