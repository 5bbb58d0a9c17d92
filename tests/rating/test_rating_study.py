import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import sightline as sl
from sightline import SightlineError
from sightline.cli.app import app
from sightline.evaluation import evaluate
from sightline.rating.batch import Contender, examples
from sightline.rating.store import Store
from sightline.rating.study import open_study
from sightline.reporting.overlay import show


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small runs on the same data; the evaluation kept Grad-CAM maps."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name, seed in (("guided", 0), ("plain", 1)):
        recipe = sl.Recipe(
            name=name, seed=seed, data={"name": "digits", "copies": 1, "size": 32}, image_size=32, model="sightline/lenet5",
            stages=[{"epochs": 1, "lr": 1e-3}],
        )  # fmt: skip
        run = sl.train(recipe, output=folder / name)
        evaluate(run, splits=["test_shifted"], explainers=["gradcam"], metrics=["accuracy"])
        made.append(run.path)
    return made


def contenders(runs, explainer="gradcam"):
    return [Contender(run, explainer) for run in runs]


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), dtype=float)


def test_a_pair_is_an_image_under_the_maps_that_both_evaluations_kept(runs, tmp_path):
    store = open_study(tmp_path, contenders(runs), images=9)
    assert store.facts["maps"] == "kept by the evaluations"
    assert len({pair.index for pair in store.pairs.values()}) == 9
    digits = sl.data.create_dataset("digits", copies=1, size=32)["test_shifted"]
    for pair in store.pairs.values():
        assert pair.label == digits.classes[digits.labels[pair.index]]
        for run, side in zip(runs, "ab"):
            gallery = run / "evaluation" / "test_shifted" / "gallery"
            maps = load_file(gallery / "maps.safetensors")
            saliency = maps["gradcam"][maps["index"] == pair.index].float() / 255
            large = torch.nn.functional.interpolate(saliency[None], size=(480, 480), mode="bilinear")[0]
            image = torch.from_numpy(
                pixels((runs[0] / "evaluation/test_shifted/gallery/images" / f"{pair.index}.jpg").read_bytes())
            )
            image = image.permute(2, 0, 1).float()[None].repeat_interleave(15, 2).repeat_interleave(15, 3) / 255
            expected = show(image, large).overlays["map"][0].permute(1, 2, 0).numpy() * 255
            assert np.abs(pixels(store.picture(pair.names[side])) - expected).mean() < 3  # what JPEG changes


def test_maps_that_were_not_kept_are_made(runs, tmp_path):
    kept = open_study(tmp_path / "kept", contenders(runs), images=3)
    bare = []
    for run in runs:
        bare.append(tmp_path / run.name)
        shutil.copytree(run, bare[-1], ignore=shutil.ignore_patterns("evaluation", "tensorboard"))
    made = open_study(tmp_path / "made", contenders(bare), images=3)
    assert made.facts["maps"] == "made for the study"
    indices = {pair.index: pair for pair in made.pairs.values()}
    same = [(pair, indices[pair.index]) for pair in kept.pairs.values() if pair.index in indices]
    assert same
    for one, other in same:
        assert one.label == other.label
        old, new = (
            {p: pixels(t.picture(pair.names[p])) for p in pair.names} for t, pair in ((kept, one), (made, other))
        )
        for part in ("image", "a", "b"):  # the gallery's image went through JPEG at its own few pixels
            assert np.abs(old[part] - new[part]).mean() < 10
        assert np.abs(old["a"] - new["a"]).mean() < np.abs(old["a"] - new["b"]).mean()


def test_one_run_and_two_explainers(runs, tmp_path):
    store = open_study(tmp_path, [Contender(runs[0], "gradcam"), Contender(runs[0], "eigencam")], images=2)
    assert store.facts["maps"] == "made for the study"  # the evaluation kept one of the two
    a, b = (pixels(store.picture(store.pairs[0].names[side])) for side in "ab")
    assert np.abs(a - b).mean() > 1


def test_the_images_depend_on_the_seed(runs, tmp_path):
    drawn = {}
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        store = open_study(tmp_path / name, contenders(runs), images=9, seed=seed)
        drawn[name] = [pair.index for pair in store.pairs.values()]
    assert drawn["one"] == drawn["same"] != drawn["other"]


def test_a_study_resumes_and_rejects_to_become_another(runs, tmp_path):
    made = open_study(tmp_path, contenders(runs), images=2)
    made.join("Anna")
    for given in (contenders(runs), []):
        assert [r.name for r in open_study(tmp_path, given).raters().values()] == ["Anna"]
    with pytest.raises(SightlineError, match="images are 2, not 3"):
        open_study(tmp_path, images=3)
    with pytest.raises(SightlineError, match="holds a study whose contenders"):
        open_study(tmp_path, contenders(runs[::-1]))


def test_methods_that_cannot_be_compared_raise(runs, tmp_path):
    with pytest.raises(SightlineError, match="expected 1 to 270"):
        open_study(tmp_path, contenders(runs), images=271)
    with pytest.raises(SightlineError, match="unknown split"):
        open_study(tmp_path, contenders(runs), split="tset")
    with pytest.raises(SightlineError, match="no study in"):
        open_study(tmp_path)
    with pytest.raises(SightlineError, match="both contenders are gradcam of"):
        open_study(tmp_path, contenders([runs[0], runs[0]]))
    with pytest.raises(SightlineError, match="is not a run folder"):
        Contender(tmp_path, "gradcam")
    with pytest.raises(SightlineError, match="'gradcam'"):
        Contender(runs[0], "gradcamm")
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    facts = json.loads((other / "run.json").read_text())
    facts["data"]["test_shifted"]["fingerprint"] = "0" * 16
    (other / "run.json").write_text(json.dumps(facts))
    with pytest.raises(SightlineError, match="not the same images"):
        open_study(tmp_path / "study", contenders([runs[0], other]))
    assert not (tmp_path / "study").exists()


def test_the_examples_show_a_two_with_the_colour_on_it_and_next_to_it():
    shown = {name: pixels(jpeg) for name, jpeg in examples().items()}
    digits = sl.data.create_dataset("digits", copies=1, size=96)["test_shifted"]
    sample = digits[185]
    assert digits.classes[sample.label] == "2"  # as the instructions call it
    mask = np.kron(sample.mask.numpy(), np.ones((5, 5))) == 1
    colour = {name: picture.max(2) - picture.min(2) for name, picture in shown.items()}  # an overlay's ground is grey
    assert colour["example-good"][mask].mean() > 5 * colour["example-good"][~mask].mean()
    assert colour["example-bad"][mask].mean() < colour["example-bad"][~mask].mean() / 5


def test_the_command_makes_exports_imports_and_counts(runs, tmp_path):
    study, batch = tmp_path / "study", tmp_path / "batch"

    def run(*arguments):
        done = CliRunner().invoke(app, ["rate", "-o", str(study), *map(str, arguments)])
        assert done.exception is None, done.output
        return done.output

    assert "batch.csv" in run(*runs, "--images", 2, "--export-batch", batch)
    header, *rows = (batch / "batch.csv").read_text().splitlines()
    lines = [",".join(["WorkerId", "Answer.choice", *(f"Input.{column}" for column in header.split(","))])]
    lines += [f"W{worker},same,{row}" for worker in range(5) for row in rows]
    (tmp_path / "answers.csv").write_text("\n".join(lines))
    assert "10 votes are new" in run("--import-batch", tmp_path / "answers.csv")
    text = run("--results")
    assert "guided is better: 0 pairs" in text
    assert "100%" in text
    assert json.loads((study / "results.json").read_text())["shares"] == {"pos": 0, "same": 1, "neg": 0}
    assert len(Store(study / "study.sqlite").votes()) == 10


@pytest.mark.parametrize("explainers", ["gradcam", "gradcam,eigencam,lots"])
def test_the_command_needs_two_contenders(runs, explainers):
    done = CliRunner().invoke(app, ["rate", str(runs[0]), "--explainers", explainers])
    assert isinstance(done.exception, SightlineError)
    assert "two runs and one explainer" in str(done.exception)


@pytest.mark.parametrize(
    ("host", "is_told"),
    [(None, False), ("localhost", False), ("127.0.0.2", False), ("::1", False), ("0.0.0.0", True), ("box", True)],
)
def test_the_command_serves_at_the_loopback_unless_told_otherwise(runs, tmp_path, monkeypatch, host, is_told):
    import sightline.rating.server as server

    calls = []

    def serve(study, host, port, announce):
        calls.append(host)
        announce("http://127.0.0.1:1/?token=x")

    monkeypatch.setattr(server, "serve", serve)
    chosen = ["--host", host] if host else []
    done = CliRunner().invoke(app, ["rate", *map(str, runs), "--images", "1", "-o", str(tmp_path), *chosen])
    assert done.exception is None
    assert calls == [host or "127.0.0.1"]
    assert "http://127.0.0.1:1/?token=x" in done.output
    assert ("not encrypted" in done.output) is is_told
