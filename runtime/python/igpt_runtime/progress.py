"""How long work tells how far it is: the name of its stage, and what is done of it."""


class Progress:
    """What long work calls; shows nothing by itself. `igpt_runtime.console.stages` gives one that does."""

    def stage(self, name: str) -> None:
        """Begin a stage, such as "writing weights"."""

    def count(self, done: int, total: int, unit: str) -> None:
        """Say how much of the stage is done, and of how much. unit: a plural, such as "bytes" or "layers"."""


SILENT = Progress()
