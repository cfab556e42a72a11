"""The page shows what was measured of the clients in other languages, which drew what Python draws."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from page_table import with_table

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_clients", HERE / "clients/measure.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_record(measure: ModuleType) -> None:
    page, record = measure.PAGE.read_text(), json.loads(measure.RECORD.read_text())
    assert with_table(page, "native", measure.table(record)) == page
    assert {(row["bundle"], row["rows"]) for row in record["loops"]} == {
        (bundle, rows) for bundle in ("demo", "small, int8") for rows in measure.ROWS
    }
