"""Every file that a command reads is damaged in several ways: one line names the file, or the result is right."""

import random
import re
import shutil

import pytest
from children import run
from verbs import VERBS

READERS = {
    "evaluate a run": ("evaluate", "run", "--explainers", "gradcam", "--metrics", "accuracy"),
    "evaluate to a table": ("evaluate", "run", "--explainers", "gradcam", "--metrics", "accuracy", "-o", "new"),
    "train on": ("train", "recipe.yaml", "--output", "run", "--resume", "--no-evaluate"),
    "export": ("export", "run", "-o", "new", "--formats", "state-dict"),
    "compare": ("compare", "run", "--against", "less", "-o", "out/report.html"),
    "acquire next": ("acquire", "run", "--next", "2", "--strategy", "random", "-o", "next.csv"),
    "rate": ("rate", "run", "--explainers", "gradcam,eigencam", "--images", "2", "-o", "new", "--results"),
    "explain to a store": VERBS["explain to a store"].arguments,
    "boxes": VERBS["boxes"].arguments,
    "masks": VERBS["masks"].arguments,
    "go on with a table": VERBS["evaluate to a table"].arguments,
    "leaderboard": VERBS["leaderboard"].arguments,
    "sweep": VERBS["sweep"].arguments,
    "acquire": VERBS["acquire"].arguments,
    "count votes": ("rate", "-o", "rated", "--results"),
}
RUN = ("run/run.json", "run/recipe.yaml", "run/checkpoints/last.safetensors", "run/checkpoints/best.safetensors",
       "run/checkpoints/resume.safetensors", "run/metrics.csv", "recipe.yaml")  # fmt: skip
EVALUATION = tuple(f"run/evaluation/test/{name}" for name in (
    "summary.json", "samples.csv", "curves.json", "gallery/maps.safetensors", "gallery/images/0.jpg"))  # fmt: skip
FILES = {
    "train on": RUN,
    "evaluate a run": RUN,
    "evaluate to a table": RUN,
    "export": RUN,
    "compare": (*RUN, *EVALUATION),
    "acquire next": ("run/run.json", "run/recipe.yaml"),
    "rate": (*RUN, *EVALUATION),
    "explain to a store": ("maps/zarr.json", "maps/maps/zarr.json", "maps/finished/zarr.json", "maps/finished/c/0"),
    "boxes": ("found/boxes.csv.journal",),
    "masks": ("masks/journal",),
    "go on with a table": ("table/study.yaml", "table/parts/*.json", "table/parts/*.safetensors"),
    "leaderboard": ("made/table.csv", "made/samples.parquet", "made/tests.csv", "made/study.yaml", "made/curves.csv",
                    "made/gallery.safetensors"),
    "sweep": ("sweep/sweep.yaml", "sweep/sweep.db", "sweep/trials/0000/recipe.yaml"),
    "acquire": ("loop/study.yaml", "loop/parts/*.json", "loop/samples/*.csv"),
    "count votes": ("rated/study.sqlite",),
}  # fmt: skip

pytestmark = pytest.mark.slow


def damages(content: bytes) -> dict[str, bytes | None]:
    draw = random.Random(len(content))
    noise = bytes(draw.randrange(256) for _ in range(64))
    middle = len(content) // 2
    return {
        "empty": b"",
        "cut": content[:middle],
        "latin-1": "épaule: [".encode("latin-1") + content,
        "overwritten": content[: middle - 32] + noise + content[middle + 32 :],
        "another kind": b"[1, 2]\n",
    }


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named(name, work):
    folder, tried = work(), 0
    if name in VERBS and name not in (
        "evaluate a run",
        "evaluate to a table",
        "export",
        "acquire next",
        "rate",
        "compare",
    ):
        assert run(folder, *VERBS[name].arguments).code == 0
    elif name == "go on with a table":
        assert run(folder, *VERBS["evaluate to a table"].arguments).code == 0
    files = [file for pattern in FILES[name] for file in sorted(folder.glob(pattern))[:1]]
    assert files
    for file in files:
        whole = file.read_bytes()
        for kind, content in damages(whole).items():
            for place in ("new", "next.csv", "out"):
                shutil.rmtree(folder / place, ignore_errors=True)
            file.write_bytes(content or b"")
            done = run(folder, *READERS[name])
            told = f"{file.relative_to(folder)}, {kind}: {done.said}"
            assert "Traceback" not in done.said, told
            assert done.code in (0, 1, 2), told
            if done.code != 0:
                errors = [line for line in done.said.splitlines() if line.startswith("error:")]
                assert len(errors) == 1, told
                names = {file.name, file.stem, *(parent.name for parent in file.parents if folder in parent.parents)}
                assert any(each in re.split(r"[\s/:'\",;]", errors[0]) for each in names), told
            tried += 1
        file.write_bytes(whole)
    assert tried >= 5
