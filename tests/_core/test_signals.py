import os
import signal
import threading

import pytest

from sightline._core.signals import TerminatedError, terminable


def test_sigterm_becomes_an_exception_within_and_only_there():
    with pytest.raises(TerminatedError), terminable(), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_handler_of_the_program_stays():
    got = []
    signal.signal(signal.SIGTERM, lambda *_: got.append(1))
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
        assert got == [1]
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_another_thread_changes_no_handler():
    found = []

    def look():
        with terminable():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
