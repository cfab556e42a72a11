"""The page shows what was measured of the clients in other languages, which drew what Python draws."""

import json

from bench.clients import measure
from page_table import with_table


def test_the_page_shows_the_record() -> None:
    page, record = measure.PAGE.read_text(), json.loads(measure.RECORD.read_text())
    assert with_table(page, "native", measure.table(record)) == page
    assert {(row["bundle"], row["rows"]) for row in record["loops"]} == {
        (bundle, rows) for bundle in ("demo", "small, int8") for rows in measure.ROWS
    }
