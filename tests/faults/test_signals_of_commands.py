"""Ctrl+C and SIGTERM: the exit code says which, a line says how to go on, the run says that it was interrupted."""

import json
import os
import signal
import time

import pytest
from children import finish, run, start
from verbs import VERBS, left_over

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("sent", "code", "status"),
    [(signal.SIGINT, 130, "failed: interrupted"), (signal.SIGTERM, 143, "failed: terminated")],
)
def test_a_training_that_is_interrupted_says_how_to_resume(sent, code, status, work):
    verb, folder = VERBS["train"], work()
    child = start(folder, *verb.arguments, "stages.0.epochs=2000")
    facts = folder / "new" / "run.json"
    until = time.monotonic() + 600
    while not (folder / "new" / "checkpoints" / "last.safetensors").is_file():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert json.loads(facts.read_text())["status"] == "running"
    os.kill(child.process.pid, sent)
    done = finish(child)
    assert done.code == code, done.said
    assert "Traceback" not in done.said, done.said
    assert "interrupted: run the same command again with --resume" in done.said
    assert json.loads(facts.read_text())["status"] == status
    assert not left_over(folder)


@pytest.mark.parametrize("name", sorted(VERBS.keys() - {"train"}))
def test_every_command_ends_at_sigterm_and_resumes(name, work, undisturbed):
    verb, folder = VERBS[name], work()
    expected, *_ = undisturbed(name)
    child = start(folder, *verb.arguments)
    time.sleep(0.5)
    if child.process.is_alive():
        os.kill(child.process.pid, signal.SIGTERM)
    done = finish(child)
    assert done.code in (0, 143, -15), done.said  # -15: before the command has begun
    assert "Traceback" not in done.said, done.said
    done = run(folder, *verb.arguments)
    assert done.code == 0 or (verb.refused and verb.refused in done.said), done.said
    assert verb.result(folder) == expected
    assert not left_over(folder)
