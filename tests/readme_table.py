"""Tables of the README that are made from records: each between two comments of its name."""


def with_table(readme: str, name: str, table: str) -> str:
    """The README with this table. Raises ValueError if it has no place for it."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = readme.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"no {begin} ... {end} to write between")
    return f"{before}{begin}\n{table}\n{end}{after}"
