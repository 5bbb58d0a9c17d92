"""The data of a run is compared with what the run was trained on, by everything that opens both."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sightline as sl
from layouts import write_csv, write_image
from sightline.acquisition import select_from_run
from sightline.cli.app import app
from sightline.cli.subject import find_data
from sightline.errors import SightlineError
from sightline.evaluation import evaluate
from sightline.runs import Recipe, Run, load_run

COLORS = {"cat": (200, 30, 30), "dog": (30, 30, 200)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/CLASS/N.jpg and a run on them."""
    base = tmp_path_factory.mktemp("trained")
    for name, color in COLORS.items():
        for i in range(12):
            write_image(base / "images" / name / f"{i}.jpg", color)
    recipe = Recipe(
        name="folder",
        data={"name": "folder", "root": "images", "val": 2, "test": 3},
        image_size=32,
        model="sightline/lenet5",
        stages=[{"epochs": 1, "lr": 1e-3}],
        evaluation={"explainers": ["gradcam"], "metrics": ["accuracy"]},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        sl.train(recipe, output="run")
    return base


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may change, as the working directory."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def rename(place: Path) -> None:
    (place / "images/cat").rename(place / "images/zebra")


def add_class(place: Path) -> None:
    for i in range(12):
        write_image(place / "images/ant" / f"{i}.jpg")


def add_files(place: Path) -> None:
    for i in range(100, 130):
        write_image(place / "images/cat" / f"{i}.jpg")


def remove_file(place: Path) -> None:
    test = load_run("run").splits["test"]
    Path(test.path(0)).unlink()


def refusal(*arguments: str) -> str:
    """What a command that fails says."""
    done = CliRunner().invoke(app, [*arguments])
    assert isinstance(done.exception, SightlineError), done.output
    return str(done.exception)


VERBS: list[Callable[[], object]] = [
    lambda: evaluate("run"),
    lambda: load_run("run").splits["test"],
    lambda: select_from_run(Run(Path("run")), "random", 1),
    lambda: refusal("diagnose", "--run", "run", "-o", "d.html"),
    lambda: refusal("explain", "--run", "run", "--store", "s", "--split", "test"),
    lambda: refusal("evaluate", "run", "--output", "table"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "the classes of the data of run are not those that it was trained on .*new: 'zebra'; missing: 'cat'"),
        (add_class, "the classes of the data of run are not .*new: 'ant'"),
    ],
)
def test_other_classes_are_rejected_everywhere(place: Path, change: Callable[[Path], None], message: str) -> None:
    change(place)
    for verb in VERBS:
        try:
            said = verb()
        except SightlineError as error:
            said = str(error)
        assert "are not those that it was trained on" in str(said)
    with pytest.raises(SightlineError, match=message):
        evaluate("run")
    assert not (place / "run/evaluation").exists()


def test_a_split_that_changed_is_rejected_when_it_is_taken(place: Path) -> None:
    evaluate("run")
    remove_file(place)
    with pytest.raises(
        SightlineError, match=r"split 'test' of the data of run is not what it was .*6 images then, 6 now"
    ):
        evaluate("run")  # a count of 3 takes another image in
    splits = load_run("run").splits
    assert len(splits["val"]) == 4
    with pytest.raises(SightlineError, match="the split 'test'"):
        splits.select(None)


def swap(first: Path, second: Path) -> None:
    """Exchange the content of two files."""
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def test_images_that_are_swapped_under_their_names_are_rejected_everywhere(place: Path) -> None:
    test = load_run("run").splits["test"]
    cats, dogs = ([Path(test.path(i)) for i in range(6) if int(test.labels[i]) == label] for label in (0, 1))
    for pair in zip(cats, dogs):
        swap(*pair)
    for verb in (
        lambda: evaluate("run"),
        lambda: load_run("run").splits["test"],
        lambda: refusal("diagnose", "--run", "run", "-o", "d.html"),
        lambda: refusal("explain", "--run", "run", "--store", "s", "--split", "test"),
        lambda: refusal("evaluate", "run", "--output", "table"),
    ):
        try:
            said = verb()
        except SightlineError as error:
            said = str(error)
        assert re.search(
            "split 'test' of the data of run is not .*files have the same names and other content", str(said)
        )
    assert len(load_run("run").splits["val"]) == 4
    for pair in zip(cats, dogs):
        swap(*pair)
    evaluate("run")


def test_images_that_are_swapped_are_rejected_by_acquire_and_resume(place: Path) -> None:
    swap(*(Path(split.path(0)) for split in (load_run("run").splits["train"], load_run("run").splits["val"])))
    with pytest.raises(SightlineError, match=r"the split 'train' of the data of run is not .*other content"):
        select_from_run(Run(Path("run")), "random", 1)
    with pytest.raises(SightlineError, match=r"cannot resume run: files of the split 'train' have the same names"):
        sl.train(Run(Path("run")).recipe, output="run", resume=True)


def test_a_run_that_did_not_record_contents_is_compared_by_names(place: Path) -> None:
    facts = json.loads(Path("run/run.json").read_text())
    del facts["data_contents"]
    Path("run/run.json").write_text(json.dumps(facts))
    train = load_run("run").splits["train"]
    swap(Path(train.path(0)), Path(train.path(len(train) - 1)))
    assert len(load_run("run").splits["train"]) == len(train)
    assert sl.train(Run(Path("run")).recipe, output="run", resume=True).rows


def test_data_of_a_run_that_changed_is_not_diagnosed(place: Path) -> None:
    remove_file(place)
    assert "of the data of run is not what it was when the run was trained" in refusal(
        "diagnose", "--run", "run", "-o", "d.html"
    )


def test_files_that_are_added_are_noticed(place: Path) -> None:
    add_files(place)
    with pytest.raises(SightlineError, match="the split 'test' of the data of run is not what it was"):
        evaluate("run")
    with pytest.raises(SightlineError, match="the split 'train' of the data of run is not what it was"):
        select_from_run(Run(Path("run")), "random", 1)


def test_less_to_train_on_is_not_a_change_of_the_data(place: Path) -> None:
    sl.train("run/recipe.yaml", {"train_fraction": 0.5, "name": "half"}, output="half")
    assert len(load_run("half").splits["train"]) == 14
    assert Run(Path("half")).facts["data"]["train"]["images"] == 7


def test_other_data_counts_its_classes_as_the_run_does(place: Path) -> None:
    for i in range(4):
        write_image(place / "more/test/dog" / f"{i}.jpg", COLORS["dog"])
        write_image(place / "more/train/dog" / f"{i}.jpg", COLORS["dog"])
    for split in ("train", "test"):
        write_image(place / "more" / split / "elephant/0.jpg")
    said = refusal("diagnose", "--run", "run", "--data", "folder", "root=more", "-o", "d.html")
    assert "1 of the 2 classes of the data are unknown to the run run: 'elephant'" in said

    said = refusal("evaluate", "run", "--data", "folder", "root=more", "-o", "table", "--explainers", "gradcam")
    assert "unknown to the model: 'elephant'" in said


def test_a_table_is_the_same_in_whatever_order_the_data_has_its_classes(place: Path) -> None:
    rows: list[dict[str, object]] = [
        {"path": f"images/{name}/{i}.jpg", "label": name, "split": split}
        for split, places in (("train", range(3)), ("test", range(4, 9)))
        for name in COLORS
        for i in places
    ]
    write_csv(place / "list.csv", rows)
    figures = {}
    for order in ("cat,dog", "dog,cat"):
        given = ["--data", "csv", "path=list.csv", f"classes=[{order}]", "val=0", "--explainers", "gaussian"]
        done = CliRunner().invoke(app, ["evaluate", "run", *given, "--metrics", "accuracy,average_drop", "-o", order])
        assert done.exception is None, done.output
        figures[order] = [row.split(",")[3:6] for row in Path(order, "table.csv").read_text().splitlines()]
    assert figures["cat,dog"] == figures["dog,cat"]


def test_images_that_the_run_was_trained_on_are_counted(place: Path) -> None:
    images = load_run("run").splits["train"]
    trained_on = {Path(images.path(i)).resolve() for i in range(len(images))}
    other = sl.data.create_dataset("folder", root="images", val=0, test=0.5, seed=7)["test"]
    count = sum(Path(other.path(i)).resolve() in trained_on for i in range(len(other)))
    assert count
    with pytest.warns(UserWarning, match=f"run was trained on {count} of these {len(other)} images"):
        find_data(None, ["val=0", "test=0.5", "seed=7"], "test", Path("run"), labels=True)
    add_files(place)
    with pytest.warns(UserWarning, match="cannot tell whether run was trained on some of these images"):
        find_data("folder", ["root=images", "seed=7"], "test", Path("run"), labels=True)
