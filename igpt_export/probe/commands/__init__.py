"""The command `igpt-run probe` and its own commands, one module each, called like it.

Each parses its options, calls the library and prints.
"""
