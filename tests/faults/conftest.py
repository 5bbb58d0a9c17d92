import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import run
from verbs import VERBS, prepare


@pytest.fixture(scope="session")
def ready(tmp_path_factory) -> Path:
    """A folder with all that the commands need."""
    folder = tmp_path_factory.mktemp("ready") / "work"
    folder.mkdir()
    for command in prepare(folder):
        done = run(folder, *command)
        assert done.code == 0, done.said
    return folder


@pytest.fixture(scope="session")
def undisturbed(ready, tmp_path_factory) -> Callable[[str], tuple[object, int, float]]:
    """By the name of a command: its result when nothing disturbs it, the number of its file operations, and its seconds."""
    known: dict[str, tuple[object, int, float]] = {}

    def find(name: str) -> tuple[object, int, float]:
        if name not in known:
            folder = tmp_path_factory.mktemp("undisturbed") / "work"
            shutil.copytree(ready, folder)
            verb = VERBS[name]
            began = time.perf_counter()
            done = run(folder, *verb.arguments)
            assert done.code == 0, done.said
            known[name] = verb.result(folder), done.operations, time.perf_counter() - began
            shutil.rmtree(folder)
        return known[name]

    return find


@pytest.fixture
def work(ready, tmp_path) -> Iterator[Callable[[], Path]]:
    """Makes a folder in which a command can run."""
    made: list[Path] = []

    def make() -> Path:
        folder = tmp_path / str(len(made)) / "work"
        shutil.copytree(ready, folder)
        made.append(folder)
        return folder

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
