"""The commands of `igpt-run`: one module a command, called like it; `options` has what they share.

Each parses its options, calls the library and prints. It may import everything but `cli`, and imports what is slow to
load inside of the command.
"""
