"""`python -m igpt_export` is `igpt-export`."""

from igpt_export.cli import main

if __name__ == "__main__":
    main(prog_name="igpt-export")
