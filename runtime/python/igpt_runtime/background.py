"""Work that goes on in a thread of its own until its result is wanted."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Task(Generic[T]):
    """A call that begins now; worth it where the time is spent outside the interpreter, as in ONNX Runtime."""

    def __init__(self, work: Callable[[], T]) -> None:
        """work: called once, without arguments, in a new thread."""
        # Not concurrent.futures: importing it takes longer than all that is needed of it here.
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # raised where the result is wanted
            self._error = error

    def result(self) -> T:
        """Wait for the end of the call; returns what it returned, raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result
