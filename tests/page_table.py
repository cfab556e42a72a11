"""Tables of the documentation that are made from records: each between two comments of its name."""

from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks"


def with_table(page: str, name: str, table: str) -> str:
    """The text of a page with this table. Raises ValueError if it has no place for it."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"no {begin} ... {end} to write between")
    return f"{before}{begin}\n{table}\n{end}{after}"
