from collections.abc import Callable
from pathlib import Path

import pytest

from run_folders import write_run


@pytest.fixture
def groups(tmp_path: Path) -> Callable[..., tuple[list[Path], list[Path]]]:
    """Two groups of three seeds each, as paths of run folders: guided and not."""

    def make(seeds: int = 3, **options) -> tuple[list[Path], list[Path]]:
        guide = {"name": "segment_overlap", "explainer": "gradcam"}
        ours = [
            write_run(
                tmp_path / f"so-{s}", name="so-loss", seed=s, guide=guide, **{"skill": 0.9, "focus": 3.0} | options
            )
            for s in range(seeds)
        ]
        theirs = [write_run(tmp_path / f"ce-{s}", name="cross-entropy", seed=s, **options) for s in range(seeds)]
        return ours, theirs

    return make
