"""Other runtimes of the same model, each measured in a process and an environment of its own (see `measure.py`)."""
