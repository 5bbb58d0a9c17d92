"""`fix` on a small network that reads the background, made by a plain logistic regression."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cheats import OBJECTS, SIZE, SPEC, accuracy, cheating_model, stack, write
from PIL import Image
from scipy import ndimage
from torch import nn

import sightline as sl
from browser import browser
from sightline.errors import SightlineError


@pytest.fixture(scope="module")
def cheat(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, Path]:
    """A network whose head was fitted on images whose background gives the class away; the images; swapped ones."""
    root = tmp_path_factory.mktemp("cheat")
    seen, swapped = write(root / "seen", False, 24, 0), write(root / "swapped", True, 24, 1)
    model = cheating_model(seen)
    assert accuracy(model, seen) == 1
    assert accuracy(model, swapped) < 0.2
    return model, seen, swapped


def fixed_with(model: nn.Module, folder: Path, **options: object) -> sl.Fixed:
    keys = {"size": SIZE, "mean": (0.5,), "std": (0.5,), "pretrained": "none"}
    return sl.fix(model, folder / "images", **{**keys, **options})


def test_masks_mend_a_model_that_reads_the_background(cheat) -> None:
    model, seen, swapped = cheat
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fixed = fixed_with(model, seen, masks=seen / "masks")
    assert accuracy(fixed.model, swapped) > 0.9
    assert accuracy(fixed.model, seen) > 0.9
    assert fixed.helped
    assert not any("another order" in note for note in fixed.notes)
    assert fixed.table[0].before < 0.3 < 0.9 < fixed.table[0].after
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())  # the given model stays
    assert not fixed.model.training


def test_classes_in_another_order_are_named(cheat) -> None:
    model, seen, _ = cheat
    turned = copy.deepcopy(model)
    with torch.no_grad():
        for part in (turned[-1].weight, turned[-1].bias):
            part.copy_(part.flip(0))
    notes = fixed_with(turned, seen, masks=seen / "masks").notes
    assert any(
        "the accuracy is 0% in the order of the folder, and 100% in the order leaf, apple" in note for note in notes
    )
    named = fixed_with(turned, seen, masks=seen / "masks", classes=["leaf", "apple"])
    assert named.table[0].before < 0.3 < 0.9 < named.table[0].after
    assert not any("another order" in note for note in named.notes)


def test_a_gain_up_to_chance_is_not_a_help(tmp_path: Path) -> None:
    write(tmp_path, False, 24, 0)
    for file in (tmp_path / "images").rglob("*.png"):  # both classes show the same object
        pixels = np.array(Image.open(file))
        mask = np.asarray(Image.open(tmp_path / "masks" / file.parent.name / file.name)) > 0
        pixels[ndimage.binary_dilation(mask, iterations=3)] = 128  # no rim of the background within the mask
        Image.fromarray(pixels).save(file)
    fixed = fixed_with(cheating_model(tmp_path), tmp_path, masks=tmp_path / "masks")
    first = fixed.table[0]
    assert first.before < 0.2 < 0.3 < first.after < 0.7
    assert not fixed.helped
    assert "Guessing the most common class gives 50.0%" in fixed.summary


def test_a_few_masks_suffice_because_the_others_are_found(cheat) -> None:
    model, seen, swapped = cheat
    names = [f"{kind}/{number}.png" for kind in OBJECTS for number in range(4)]
    masks = {name: np.asarray(Image.open(seen / "masks" / name)) for name in names}
    fixed = fixed_with(model, seen, masks=masks)
    assert len(fixed.masks) == 48
    assert accuracy(fixed.model, swapped) > 0.9
    assert "40 images without a given mask or region" in fixed.summary


def test_fix_without_marks_finds_objects(cheat) -> None:
    model, seen, swapped = cheat
    fixed = fixed_with(model, seen)
    assert any("GrabCut" in note for note in fixed.notes)
    assert accuracy(fixed.model, swapped) > 0.8


def test_output_holds_model_masks_and_report(cheat, tmp_path: Path) -> None:
    model, seen, swapped = cheat
    fixed = fixed_with(model, seen, masks=seen / "masks", output=tmp_path / "fixed")
    assert fixed.report == tmp_path / "fixed" / "report.html"
    page = fixed.report.read_text()
    assert "The refit helped" in page
    card = (tmp_path / "fixed" / "MODEL_CARD.md").read_text()
    assert f"**The refit helped.** {fixed.summary}" in card
    for row in fixed.table:
        assert f"| {row.name} | {100 * row.before:.1f} % | {100 * row.after:.1f} % |" in card
    assert "48 images, 48 of them with a given mask or region to avoid" in card
    assert "- input: 48 x 48 px" in card
    assert "classes: apple, leaf" in card
    assert "No mask or region was given" not in card
    program = torch.export.load(tmp_path / "fixed" / "model" / "model.pt2").module()
    images, _ = stack(swapped)
    with torch.no_grad():
        assert torch.allclose(program(SPEC.normalize(images)), fixed.model(SPEC.normalize(images)), atol=1e-4)
    mask = np.asarray(Image.open(tmp_path / "fixed" / "masks" / "apple" / "0.png"))
    assert ((mask > 0) == (np.asarray(Image.open(seen / "masks" / "apple" / "0.png")) > 0)).all()
    with pytest.raises(SightlineError, match="is not empty"):
        fixed_with(model, seen, masks=seen / "masks", output=tmp_path / "fixed")


def test_no_table_of_the_report_scrolls_sideways_on_a_phone(cheat, tmp_path: Path) -> None:
    model, seen, _ = cheat
    fixed = fixed_with(model, seen, masks=seen / "masks", output=tmp_path / "fixed")
    with browser(tmp_path / "browser") as tab:
        for width in (390, 1280):
            tab.size(width, 844)
            tab.open(fixed.report.as_uri())
            assert tab.value("document.documentElement.scrollWidth") <= width
            tables = tab.value("[...document.querySelectorAll('.table')].map(e => e.scrollWidth <= e.clientWidth)")
            assert tables == [True, True]
            cells = tab.value(
                "[...document.querySelectorAll('.stack tbody td[data-label]')].map(e => getComputedStyle(e).display)"
            )
            assert set(cells) == {"flex" if width == 390 else "table-cell"}


def test_the_only_image_of_a_class_is_left_out_of_the_comparison_and_named(cheat, tmp_path: Path) -> None:
    model, seen, _ = cheat
    folder = tmp_path / "three"
    shutil.copytree(seen, folder)
    (folder / "images" / "pear").mkdir()
    shutil.move(folder / "images" / "apple" / "0.png", folder / "images" / "pear" / "0.png")
    three = copy.deepcopy(model)
    three[-1] = nn.Linear(64, 3)
    fixed = fixed_with(three, folder)
    note = next(note for note in fixed.notes if "left out of the comparison" in note)
    assert "the only image of a class is among them: pear" in note
    left = int(note.partition(" ")[0])
    assert f"on the {48 - left} images" in fixed.summary
    count = fixed.table[0].after * (48 - left)
    assert count == pytest.approx(round(count), abs=1e-6)  # a share of the images that are said to count


def test_a_model_with_one_logit_keeps_one(cheat) -> None:
    model, seen, swapped = cheat
    one = copy.deepcopy(model)
    head = one[-1]
    one[-1] = nn.Linear(64, 1)
    with torch.no_grad():
        one[-1].weight.copy_(head.weight[1:] - head.weight[:1])
        one[-1].bias.copy_(head.bias[1:] - head.bias[:1])
    two, single = (fixed_with(each, seen, masks=seen / "masks") for each in (model, one))
    images = SPEC.normalize(stack(swapped)[0])
    with torch.no_grad():
        logits = two.model(images)
        torch.testing.assert_close(single.model(images)[:, 0], logits[:, 1] - logits[:, 0], atol=1e-4, rtol=1e-4)
    assert [f.after for f in single.table] == [f.after for f in two.table]
    assert [f.before for f in single.table] == [f.before for f in two.table]


def test_fix_unknown_masks_or_models_without_a_linear_head_raise(cheat) -> None:
    model, seen, _ = cheat
    with pytest.raises(SightlineError, match=r"apple/99\.png"):
        fixed_with(model, seen, masks={"apple/99.png": np.zeros((SIZE, SIZE))})
    convolution = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    with pytest.raises(SightlineError, match=r"nn\.Linear"):
        fixed_with(convolution, seen, masks=seen / "masks")


def test_fix_takes_any_form_of_data_and_skips_a_corrupt_image(cheat, tmp_path: Path) -> None:
    model, seen, swapped = cheat
    files = sorted((seen / "images").rglob("*.png"))
    bad = tmp_path / "apple.png"
    bad.write_bytes(files[0].read_bytes()[:50])
    names = [file.relative_to(seen / "images").as_posix() for file in files]
    items = [{"image": Image.open(file).convert("RGB"), "label": list(OBJECTS).index(file.parent.name), "name": name,
              "mask": Image.open(seen / "masks" / name)} for file, name in zip(files, names)]  # fmt: skip
    items.insert(5, {"image": str(bad), "label": 0})
    options = {"size": SIZE, "mean": (0.5,), "std": (0.5,), "pretrained": "none"}
    with pytest.warns(UserWarning, match=r"1 of 49 images cannot be read and are left out: .*apple\.png"):
        fixed = sl.fix(model, items, output=tmp_path / "fixed", **options)
    assert accuracy(fixed.model, swapped) > 0.9
    assert sorted(fixed.masks) == sorted(names)
    assert any("1 images cannot be read and are left out" in note for note in fixed.notes)
    written = sorted((tmp_path / "fixed" / "masks").rglob("*.png"))
    assert [file.relative_to(tmp_path / "fixed" / "masks").as_posix() for file in written] == sorted(names)
    shown = np.asarray(Image.open(tmp_path / "fixed" / "masks" / names[3])) > 0
    assert (shown == (np.asarray(Image.open(seen / "masks" / names[3])) > 0)).all()


def test_splits_of_a_folder_are_all_looked_at(cheat, tmp_path: Path) -> None:
    model, seen, _ = cheat
    for file in (seen / "images").rglob("*.png"):
        place = tmp_path / "images" / ("train" if int(file.stem) < 12 else "test") / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    fixed = fixed_with(model, tmp_path)
    assert "48 images in 2 classes" in fixed.notes
