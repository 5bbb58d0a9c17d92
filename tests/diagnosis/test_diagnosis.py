"""The verdict on models that read the object alone, or the background alone, by construction; and on trained ones."""

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors

import sightline as sl
from sightline.cli.app import app
from sightline.cli.subject import find_data, find_subject
from sightline.data import ImageDataset, Sample
from sightline.diagnosis import TrainingConfig, diagnose, write_diagnosis
from sightline.diagnosis.checks import background_alone, draw_partners, greyed_background, swapped_background
from sightline.diagnosis.measurements import measure
from sightline.diagnosis.page import text
from sightline.diagnosis.recommendations import MASK_GUIDES, WITHOUT_MASKS, fix_command, recommend_guides
from sightline.guides.random_background import paint_over
from sightline.localization.annotation import annotate
from sightline.localization.detectors import Box, BoxDetector
from sightline.metrics import NormalizedRFS
from sightline.runs import read_recipe

SIDE = 16
SPEC = sl.InputSpec((0.0,) * 3, (1.0,) * 3, (SIDE, SIDE))
INSIDE = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
INSIDE[4:12, 4:12] = 1
STUDY = Path(__file__).parents[2] / "runs" / "pets" / "study"


class Squares(ImageDataset):
    """A square on a ground. The square's red and green say the class, and so does the ground's blue."""

    def __init__(self, count: int = 40, masks: bool = True, misleading: bool = False, classes: int = 2) -> None:
        self.misleading = misleading
        super().__init__(["red", "green"], [i % classes for i in range(count)], [masks] * count, identity=misleading)

    def load(self, index: int) -> Sample:
        label = int(self.labels[index])
        ground = torch.tensor([127, 127, 255 * (label ^ self.misleading)])[:, None, None]
        square = torch.tensor([255 * (1 - label), 255 * label, 127])[:, None, None]
        pixels = torch.where(INSIDE.bool(), square, ground).to(torch.uint8)
        mask = tv_tensors.Mask(INSIDE) if self.has_mask[index] else None
        return Sample(tv_tensors.Image(pixels), label, mask, index, None, f"/photos/<{index}>.png")


class Reads(nn.Module):
    """A model of the square's red and green, or of the ground's blue."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a = self.layer(x)
        if self.what == "object":
            return 8 * a[:, :2, 4:12, 4:12].mean((2, 3))
        blue = (a[:, 2].sum((1, 2)) - a[:, 2, 4:12, 4:12].sum((1, 2))) / (SIDE**2 - 64)
        return (8 if self.what == "ground" else 0) * torch.stack([1 - blue, blue], 1)


def diagnosed(what: str, data: ImageDataset | None = None, **options: object):
    options = {"explainer": "hirescam", "layer": "layer", "input_spec": SPEC, **options}
    return diagnose(Reads(what), data or Squares(), **options)


def values(found) -> dict[str, float]:
    return {name: round(figure.value, 4) for name, figure in found.measurements.items()}


def test_a_model_of_the_object_alone_looks_at_the_object() -> None:
    found = diagnosed("object")
    assert found.verdict.answer == "looks at the object"
    expected = {
        "accuracy": 1, "background_greyed": 1, "background_swapped": 1, "background_noised": 1, "swap_loss": 0,
        "prediction_kept": 1, "prediction_follows_background": 0, "energy_in_mask": 1, "pointing_game": 1, "view_stability": 1,
    }  # fmt: skip
    assert {name: values(found)[name] for name in expected} == expected
    # Painted over, the square is grey in red and green: the same answer for all, right for one class of two.
    assert values(found)["object_removed"] == found.measurements["object_removed"].chance == 0.5


class OneLogit(Reads):
    """The same model with the difference of its two logits."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).diff(dim=1)


@pytest.mark.parametrize("what", ["object", "ground"])
def test_one_logit_gets_the_diagnosis_of_two(what: str) -> None:
    options = {"explainer": "hirescam", "layer": "layer", "input_spec": SPEC}
    one, two = diagnose(OneLogit(what), Squares(), **options), diagnosed(what)
    assert one.verdict.answer == two.verdict.answer
    behavior = {name: value for name, value in values(two).items() if name not in ("energy_in_mask", "view_stability")}
    assert {name: values(one)[name] for name in behavior} == pytest.approx(behavior, abs=1e-3)
    assert one.classes.keys() == two.classes.keys()


@pytest.mark.parametrize("misleading", [False, True])
def test_a_model_of_the_background_alone_leans_on_the_background(misleading) -> None:
    """Every partner is of the other class, so the swap turns every answer; where grounds mislead, for the better."""
    found = diagnosed("ground", Squares(misleading=misleading))
    assert found.verdict.answer == "leans on the background"
    right = float(not misleading)
    expected = {
        "accuracy": right, "object_removed": right, "object_noised": right, "background_swapped": 1 - right,
        "background_greyed": 0.5, "swap_loss": 2 * right - 1, "prediction_kept": 0,
        "prediction_follows_background": 1, "energy_in_mask": 0,
    }  # fmt: skip
    assert {name: values(found)[name] for name in expected} == expected
    assert found.classes["red"]["swap_loss"][:3] == [2 * right - 1] * 3
    sure = 1 / (1 + math.exp(-8))  # of the answer, also from the ground alone; the swap leaves 1 - sure
    assert found.images[0]["lean"] == pytest.approx((sure - (1 - sure) + sure) / 2, abs=1e-5)


def test_without_masks_grabcut_finds_the_squares_and_the_verdicts_stay() -> None:
    shown = annotate(Squares(masks=False), size=SIDE, samples=10, annotation="auto")
    assert shown.kind == "grabcut"
    assert "without any annotation" in shown.source
    assert shown.regions.equal(INSIDE.expand(10, -1, -1))
    assert diagnosed("object", Squares(masks=False)).verdict.answer == "looks at the object"
    ground = diagnosed("ground", Squares(masks=False))
    assert ground.verdict.answer == "leans on the background"
    assert [each.guide for each in ground.recommendations] == [name for name, _ in (*MASK_GUIDES, WITHOUT_MASKS)]


@pytest.mark.parametrize(
    ("what", "data", "because"),
    [
        ("object", {"count": 20}, "Only 20 images"),
        ("nothing", {}, "not significantly above chance"),
        ("object", {"classes": 1}, "one class"),
    ],
)
def test_unclear_cases_give_the_verdict_cannot_tell(what, data, because) -> None:
    found = diagnosed(what, Squares(**data))
    assert found.verdict.answer == "cannot tell"
    assert because in found.verdict.because


def test_boxes_come_from_the_batches_or_from_around_the_masks() -> None:
    rectangle = annotate(Squares(), size=SIDE, samples=4, annotation="boxes")
    assert rectangle.regions.equal(INSIDE.expand(4, -1, -1))
    images = torch.stack([Squares()[i].image.float() / 255 for i in range(4)])
    labels, boxes = torch.tensor([0, 1, 0, 1]), torch.tensor([[[2.0, 3, 14, 13], [0, 0, 16, 16]]]).repeat(4, 1, 1)
    real = torch.tensor([[True, False]] * 3 + [[False, False]])
    batches = [sl.Batch(images[r], labels[r], boxes=boxes[r], has_box=real[r]) for r in (slice(0, 1), slice(1, 4))]
    drawn = annotate(batches, size=0, samples=4, annotation="boxes")
    order = drawn.indices.argsort()
    assert drawn.usable[order].tolist() == [True, True, True, False]
    assert drawn.regions[order][0].nonzero().aminmax(dim=0).max.tolist() == [12, 13]
    cut = annotate(batches, size=0, samples=4, annotation="auto")
    assert "GrabCut in the boxes of the dataset" in cut.source
    assert cut.regions[cut.indices.argsort()][:3].equal(INSIDE.expand(3, -1, -1))
    with pytest.raises(sl.SightlineError, match="put the boxes into the batches"):
        annotate(batches, size=0, samples=4, annotation="boxes", boxes=Known())
    with pytest.raises(sl.SightlineError, match="no image has a box"):
        annotate(Squares(masks=False), size=SIDE, samples=4, annotation="boxes")


class Known(BoxDetector):
    """Boxes in pixels of the image, for every second one."""

    facts = {}  # noqa: RUF012

    def __call__(self, samples) -> list[list[Box]]:
        return [[] if sample.index % 2 else [Box(2, 4, 6, 12), Box(-5, 4, 1, 6)] for sample in samples]


def test_boxes_of_a_source_move_with_the_images() -> None:
    """Halved in size, and cropped to the square: the images are twice as wide as they are high."""

    class Wide(Squares):
        def load(self, index: int) -> Sample:
            sample = super().load(index)
            sample.image = tv_tensors.Image(torch.cat([sample.image] * 2, 2))
            sample.mask = None
            return sample

    shown = annotate(Wide(count=4, masks=False), size=8, samples=4, annotation="boxes", boxes=Shifted())
    assert shown.usable.tolist() == [index % 2 == 0 for index in shown.indices.tolist()]
    expected = torch.zeros(8, 8, dtype=torch.uint8)
    expected[2:6, 1:3] = 1  # x: (10 to 14) / 2 less the 4 that are cropped away
    assert shown.regions[shown.usable].equal(expected.expand(2, -1, -1))


class Shifted(Known):
    """The same, 8 pixels further right; the second box ends up in what is cropped away."""

    def __call__(self, samples) -> list[list[Box]]:
        return [
            [replace(b, x1=b.x1 + 8, x2=b.x2 + 8) if b.x1 > 0 else b for b in some]
            for some in super().__call__(samples)
        ]


def test_saliency_takes_the_box_of_what_a_pretrained_network_responds_to() -> None:
    class Bright(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1, bias=False)
            self.conv.weight.data = torch.tensor([1.0, 1, -1]).reshape(1, 3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).relu().mean((2, 3)).expand(-1, 2)

    data = Squares(count=8, masks=False, misleading=False)
    green = [i for i in range(8) if data.labels[i] == 1]  # squares on blue: 1 + 0 - 0.5 against 0.5 + 0.5 - 1
    shown = annotate(data, size=SIDE, samples=8, annotation="saliency", saliency=(Bright(), SPEC))
    assert shown.kind == "saliency"
    rows = [row for row, index in enumerate(shown.indices.tolist()) if index in green]
    assert shown.regions[rows].equal(INSIDE.expand(len(rows), -1, -1))
    with pytest.raises(sl.SightlineError, match="needs a pretrained network"):
        annotate(data, size=SIDE, samples=8, annotation="saliency")


def test_changed_images_follow_their_definition() -> None:
    images, others = torch.rand(2, 3, 9, 9), torch.rand(2, 3, 9, 9)
    regions, there = (torch.randint(0, 2, (2, 9, 9)).to(torch.uint8) for _ in range(2))
    regions[0, 0, 0] = 255  # belongs to neither: stays when the background goes, and goes when the object does
    kept = (regions != 0)[:, None].float()
    assert greyed_background(images, regions).equal(kept * images + (1 - kept) * 0.5)
    assert background_alone(images, regions).equal(paint_over(images, kept))
    expected = kept * images + (1 - kept) * paint_over(others, there[:, None].float())
    torch.testing.assert_close(swapped_background(images, regions, others, there), expected, rtol=0, atol=0)


def test_partners_are_of_another_class_and_depend_only_on_the_image() -> None:
    labels, usable = torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.tensor([True] * 6 + [False])
    partners = draw_partners(labels, usable, torch.arange(7))
    assert partners[6] == -1
    assert (labels[partners[:6]] != labels[:6]).all()
    assert (partners != 6).all()
    assert draw_partners(labels, usable, torch.arange(7)).equal(partners)
    assert not draw_partners(labels, usable, torch.arange(7), seed=1).equal(partners)
    alike = draw_partners(torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.bool), torch.arange(3))
    assert (alike != torch.arange(3)).all()
    assert draw_partners(torch.tensor([0]), torch.tensor([True]), torch.arange(1)).tolist() == [-1]


def test_classes_take_turns_and_images_without_a_mask_are_left_out() -> None:
    data = Squares(count=60)
    data.has_mask[::3] = False
    shown = annotate(data, size=SIDE, samples=20, annotation="masks")
    assert shown.labels.tolist() in ([0, 1] * 10, [1, 0] * 10) or shown.labels.bincount().tolist() == [10, 10]
    assert data.has_mask[shown.indices].all()
    assert annotate(data, size=SIDE, samples=20, annotation="masks").indices.equal(shown.indices)
    data.has_mask[:] = False
    data.has_mask[0] = True  # one mask is too few for "auto"
    assert annotate(data, size=SIDE, samples=20, annotation="auto").kind == "grabcut"


def test_values_are_means_and_normalised_rfs_is_the_metrics() -> None:
    column = np.array([1.0, 0.0, np.nan, 1.0])
    chances = dict.fromkeys(("accuracy", "normalized_rfs"), (0.0, ""))
    found = {f.name: f for f in measure({"accuracy": column, "background_noised": column, "object_noised": 0 * column},
                                        {**chances, "background_noised": (0, ""), "object_noised": (0, "")})}  # fmt: skip
    assert (found["accuracy"].value, found["accuracy"].n) == (pytest.approx(2 / 3), 3)
    assert found["accuracy"].low <= 2 / 3 <= found["accuracy"].high

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    diagnosis = diagnose(model, Squares(), input_spec=SPEC)
    metric = NormalizedRFS(model, input_spec=SPEC)
    for batch in annotate(Squares(), size=SIDE, samples=200, annotation="masks").batches(32):
        metric.update(batch.images, batch.labels, batch.masks, batch.has_mask, batch.indices)
    assert diagnosis.measurements["normalized_rfs"].value == pytest.approx(float(metric.compute()), abs=1e-6)


def test_every_recommended_command_is_a_recipe_with_a_guide_that_exists(tmp_path) -> None:
    data = {"name": "folder", "root": "my photos", "masks": "m"}
    named = TrainingConfig(data, {"name": "torchvision/resnet18", "weights": "a.pth"})
    (tmp_path / "recipe.yaml").write_text(read_recipe("demo-so-loss").to_yaml())
    known = TrainingConfig(data, recipe=str(tmp_path / "recipe.yaml"))
    for training in (named, known):
        for kind in ("masks", "boxes", "grabcut", "saliency"):
            for each in recommend_guides(kind, kind == "boxes", training):
                recipe = read_recipe(each.arguments[0], each.arguments[1:])
                assert recipe.guide == each.guide
                assert each.guide in sl.guides.GUIDES
                made = {"source": data, "masks": "found-masks"} if each.first else {"root": "my photos", "masks": "m"}
                assert recipe.data.options == made
                if training is named:
                    model = (recipe.model.name, recipe.model.weights, recipe.image_size)
                    assert model == ("torchvision/resnet18", "a.pth", 224)
    assert recommend_guides("masks", False, None)[0].command == ""


def test_masks_are_made_in_boxes_or_found_before_training_and_nothing_is_recommended_twice() -> None:
    data = {"name": "folder", "root": "photos", "test": 0.3}
    training = TrainingConfig(data, {"name": "torchvision/resnet18"}, boxes="my boxes.csv")
    for each in recommend_guides("grabcut", True, training):
        assert each.first == "sightline masks folder root=photos test=0.3 --boxes 'my boxes.csv' -o found-masks"
    own = replace(training, data={**data, "boxes": "b.csv"}, boxes=None)
    assert "--boxes b.csv" in recommend_guides("boxes", True, own)[0].first
    bare = recommend_guides("grabcut", False, replace(training, boxes=None))
    assert bare[0].first == "sightline masks folder root=photos test=0.3 --center -o found-masks"
    assert (bare[0].guide, bare[-1].guide, bare[-1].first) == ("random_background", "explanation_consistency", "")
    done = replace(training, boxes=None, guides=frozenset({"random_background"}))
    assert "random_background" not in [each.guide for each in recommend_guides("grabcut", False, done)]
    found = TrainingConfig({"name": "found_masks", "source": data, "masks": "m"}, {"name": "torchvision/resnet18"})
    assert {each.first for each in recommend_guides("grabcut", False, found)} == {""}


def test_fix_command_repeats_all_options_of_diagnose() -> None:
    command = typer.main.get_command(app).get_command(None, "fix")  # type: ignore[attr-defined]
    given = {"size": 96, "mean": [0.5, 0.4, 0.3], "std": None, "classes": "my names.txt"}
    model = {"name": "timm/resnet18", "weights": "my model.pth", "layer": "layer4"}
    data = {"name": "folder", "root": "my photos", "masks": "m", "avoid": "a", "val": 0}
    training = TrainingConfig(data, model, given=given)

    def read(kind: str, training: TrainingConfig, marked: bool = False) -> dict[str, Any]:
        words = shlex.split(fix_command(kind, training, marked))
        assert words[:2] == ["sightline", "fix"]
        values = command.make_context("fix", words[2:]).params
        assert (str(values["model"]), str(values["weights"])) == ("timm/resnet18", "my model.pth")
        assert (str(values["data"]), values["size"], values["mean"]) == ("my photos", 96, "0.5,0.4,0.3")
        assert (values["std"], str(values["classes"])) == (None, "my names.txt")
        return {key: str(values[key]) for key in ("masks", "boxes", "avoid", "found") if values[key]}

    assert read("masks", training) == {"masks": "m"}
    assert read("masks", training, True) == {"masks": "m", "avoid": "a"}
    assert read("grabcut", training) == {"found": "True"}
    assert read("grabcut", replace(training, boxes="my boxes.csv")) == {"boxes": "my boxes.csv"}
    assert fix_command("masks", replace(training, data={"name": "digits"})) == ""
    assert fix_command("masks", replace(training, model=None)) == ""
    assert fix_command("masks", None) == ""


class Scattered(Squares):
    """The ground says one of the classes at random, so that a model of the ground is right by chance."""

    def load(self, index: int) -> Sample:
        sample = super().load(index)
        sample.image[2][INSIDE == 0] = 255 * (index // 2 % 2)
        return sample


def test_a_swap_that_brings_the_other_answer_outweighs_an_accuracy_at_chance() -> None:
    """Right on half of the images with every background: the swaps alone tell."""
    found = diagnosed("ground", Scattered(count=80))
    right = found.measurements["accuracy"]
    assert right.low <= right.chance <= right.high
    assert found.verdict.answer == "leans on the background"
    assert diagnosed("object", Scattered(count=80)).verdict.answer == "looks at the object"


def test_diagnosis_of_too_few_images_raises_before_the_model_runs() -> None:
    class Never(Reads):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    for data, message in ((Squares(20), "20 images .* too few"), (Squares(40, classes=1), "all images are of one")):
        with pytest.warns(UserWarning, match=message), pytest.raises(AssertionError):
            diagnose(Never("object"), data, input_spec=SPEC)


def test_images_that_training_saw_come_last_and_are_counted() -> None:
    data = Squares(100)
    seen = torch.arange(100) >= 40
    found = diagnosed("object", data, seen=seen, samples=60, about={"run": "runs/a"})
    drawn = torch.tensor([row["index"] for row in found.images])
    assert (drawn < 40).sum() == 40
    assert (found.facts["seen in training"], found.facts["run"], found.facts["size"]) == (20, "runs/a", "16 x 16")
    assert found.verdict.findings[0].startswith(
        "The model was trained on 20 of these 60 images. Its accuracy is 100% on them"
    )
    assert diagnosed("object").facts["seen in training"] == "not known"
    assert diagnosed("ground").facts["parameters"] == found.facts["parameters"]  # the toys have no weights


def test_the_page_and_the_file_say_the_same_and_need_nothing_else(tmp_path) -> None:
    found = diagnosed("ground")
    page = write_diagnosis(found, tmp_path / "new" / "page.html").read_text()
    assert "leans on the background" in page
    assert "&lt;" in page
    assert "/photos/" not in page
    assert 'src="http' not in page
    # The worst; nothing is confused; two best and two worst of both classes, each with a map.
    assert page.count("data:image/jpeg") == 4 * 16 + 2 * 4 * 2
    read = json.loads((tmp_path / "new" / "page.json").read_text(), parse_constant=pytest.fail)
    assert read["answer"] == "leans on the background"
    assert len(read["images"]) == 40
    leans = [row["lean"] for row in read["images"]]
    assert leans == sorted(leans, reverse=True)
    assert text(found.measurements["swap_loss"], 0.0) == "0.0 points"
    with pytest.raises(sl.SightlineError, match=r"ends in \.html"):
        write_diagnosis(found, tmp_path / "page.pdf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"annotation": "guess"}, "annotation is 'guess'"),
        ({"explainer": "gaussian"}, "choose another"),
        ({"classes": ["one"]}, "classes of the data are unknown to the model: 'red', 'green'"),
        ({"classes": ["red", "green", "blue"]}, "the model has 2 classes and there are 3 names"),
        ({"samples": 0}, "samples is 0"),
    ],
)
def test_diagnosis_with_invalid_input_raises_with_its_name(options, message) -> None:
    with pytest.raises(sl.SightlineError, match=message):
        diagnosed("object", **options)


def test_any_form_of_data_gives_the_same_values() -> None:
    squares = Squares()
    samples = [squares[place] for place in range(40)]
    floats = torch.stack([sample.image.as_subclass(Tensor) for sample in samples]) / 255
    expected = values(diagnosed("ground"))
    for data in (
        [{"image": s.image.permute(1, 2, 0).numpy(), "label": s.label, "mask": s.mask.numpy()} for s in samples],
        iter([sl.Batch(floats, squares.labels, torch.stack([s.mask for s in samples]))]),
    ):
        assert values(diagnosed("ground", data)) == expected
    pairs = torch.utils.data.TensorDataset(floats, squares.labels)
    for data in (pairs, torch.utils.data.DataLoader(pairs, 7)):
        found = diagnosed("ground", data)
        assert values(found)["accuracy"] == expected["accuracy"]
        assert found.annotation["kind"] == "grabcut"


def test_files_that_cannot_be_read_are_named_and_others_are_drawn(tmp_path) -> None:
    squares = Squares()
    for place in range(40):
        Image.fromarray(squares[place].image.permute(1, 2, 0).numpy()).save(tmp_path / f"{place}.png")
    table = [(tmp_path / f"{place}.png", place % 2) for place in range(40)]
    for place in (3, 8):
        table[place][0].write_bytes(table[place][0].read_bytes()[:50])
    with pytest.warns(UserWarning, match=r"2 of 40 images cannot be read and are left out: .*(3|8)\.png, .*(3|8)\.png"):
        found = diagnosed("object", table)
    assert found.facts["images"] == 38
    assert str(tmp_path / "3.png") in found.facts["cannot be read"]
    some = diagnosed("object", table, samples=36)
    assert some.facts["images"] == 36
    assert not {3, 8} & {row["index"] for row in some.images}


def test_unknown_normalization_is_reported() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.warns(UserWarning, match="assumed to be that of ImageNet"):
        diagnose(model, Squares(), shortcuts=False, preprocessing="ignore", layer="0", explainer="hirescam", samples=30)


@pytest.mark.slow
@pytest.mark.parametrize("annotation", ["masks", "grabcut"])
def test_recomposed_pets_tell_the_cheat_from_the_honest(annotation, data_folder, monkeypatch) -> None:
    """Networks of the study in benchmarks/pets_recomposed.py, whose runs are not part of the package."""
    monkeypatch.setenv("SIGHTLINE_DATA", str(data_folder))
    answers = {}
    for arm in ("cross-entropy", "random_backgrounds"):
        run = STUDY / f"{arm}-seed0"
        if not (run / "run.json").is_file():
            pytest.skip(f"{run} is not at hand: python benchmarks/pets_recomposed.py study")
        subject = find_subject(None, None, run)
        data = find_data(None, [], "test_iid", run)
        found = diagnose(
            subject.model, data, input_spec=subject.input_spec, annotation=annotation, samples=100, layer=subject.layer
        )
        answers[arm] = found.verdict.answer
    assert answers == {"cross-entropy": "leans on the background", "random_backgrounds": "looks at the object"}
