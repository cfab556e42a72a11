"""`igpt-export`, and `python -m igpt_export`."""

from igpt_runtime.__main__ import run


def main() -> None:
    """Run the command line."""
    run("igpt_export.cli", "igpt-export")


if __name__ == "__main__":
    main()
