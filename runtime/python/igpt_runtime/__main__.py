"""`python -m igpt_runtime` is `igpt-run`."""

from igpt_runtime.cli import main

if __name__ == "__main__":
    main(prog_name="igpt-run")
