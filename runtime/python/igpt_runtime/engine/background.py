"""Work that goes on in a thread of its own until its result is wanted."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Task(Generic[T]):
    """A call that begins now; worth it where the time is spent outside the interpreter, as in hashing."""

    def __init__(self, work: Callable[[], T]) -> None:
        """work: called once, without arguments, in a new thread."""
        # Not concurrent.futures: importing it takes longer than all that is needed of it here.
        self._error: BaseException | None = None
        # Kept by nobody but the thread, `work` may refer to who waits for it; a daemon does not outlive an interrupt.
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._result = work()
        except BaseException as error:  # raised where the result is wanted
            self._error = error

    def result(self) -> T:
        """Wait for the end of the call; returns what it returned, raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result
