"""A refit in its own thread: started once at a time, asked for its progress, kept when it is done."""

import sys
import threading
import traceback
from typing import Any

from sightline.errors import SightlineError
from sightline.fixing.protocol import Refit
from sightline.marking.store import Person, Store


class Refitting:
    """Runs refits of the marks in a store.

    Args:
        store: the marks; keeps what a refit found.
        refit: fits the model again.
    """

    def __init__(self, store: Store, refit: Refit) -> None:
        self.store = store
        self.refit = refit
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._state: dict[str, Any] = {"running": False, "text": "", "share": 0.0, "error": None}

    @property
    def state(self) -> dict[str, Any]:
        """Whether a refit runs, what it does, which share is done, and why the last one failed; JSON values."""
        with self._lock:
            return dict(self._state)

    def start(self, person: Person) -> bool:
        """Start a refit with the marks so far; return False where one runs already.

        Raises:
            SightlineError: there are no marks yet.
        """
        marks = self.store.marks()
        if not marks:
            raise SightlineError("There are no marks yet. Mark some images first.")
        with self._lock:
            if self._state["running"]:
                return False
            number = self.store.next_refit()
            self._state = {"running": True, "text": "Starting", "share": 0.0, "error": None}

        def run() -> None:
            error = None
            try:
                self.store.add_refit(number, person, len(marks), self.refit(marks, number, self._report))
            except SightlineError as problem:
                error = str(problem)
            except Exception as problem:  # the page continues, and the marks are safe
                traceback.print_exc(file=sys.stderr)
                error = f"The refit failed ({type(problem).__name__}: {problem}). The terminal has the details."
            with self._lock:
                self._state = {"running": False, "text": "", "share": 0.0 if error else 1.0, "error": error}

        self._thread = threading.Thread(target=run, name="refit", daemon=True)
        self._thread.start()
        return True

    def wait(self) -> None:
        """Wait until no refit runs."""
        if self._thread is not None:
            self._thread.join()

    def _report(self, text: str, share: float) -> None:
        with self._lock:
            self._state |= {"text": text, "share": min(1.0, max(0.0, share))}
