"""`open_model`: any model a user has, with its input and its classes."""

import pytest
import torch
from torch import nn

import sightline as sl
from sightline.errors import SightlineError
from sightline.models import open_model

CODE = """
import torch
from torch import nn

def make(num_classes=3, image_size=20):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))

class Small(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(3, classes)

    def forward(self, images):
        return self.fc(images.mean((2, 3)))

def half(num_classes=3):
    return Small(num_classes).half()

def fails():
    raise ValueError("no luck")

def wrong():
    return 3

def needs(path):
    return None
"""


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their_models.py").write_text(CODE)
    monkeypatch.delitem(__import__("sys").modules, "their_models", raising=False)


def tiny(classes: int = 3, channels: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, classes))


def test_a_module_is_opened_as_it_is():
    model = tiny()
    opened = open_model(model, size=24, mean=[0.1, 0.2, 0.3], std=[0.5], classes=["a", "b", "c"])
    assert opened.model is model
    assert not model.training
    assert opened.input_spec == sl.InputSpec((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), (24, 24))
    assert (opened.names, opened.count, opened.notes) == (["a", "b", "c"], 3, [])


def test_assumptions_about_a_model_are_noted_until_given():
    assert any("assumed to be that of ImageNet" in line for line in open_model(tiny()).describe())
    assert any("mean 0.485, 0.456, 0.406" in line for line in open_model(tiny()).describe())
    assert not any("assumed" in line for line in open_model(tiny(), mean=[0.0], std=[1.0]).describe())


def test_a_function_gets_the_size_and_the_classes_of_its_weights():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
    torch.save(model.state_dict(), "w.pth")
    opened = open_model("their_models:make", "w.pth", size=8)
    assert (opened.count, opened.input_spec.size) == (5, (8, 8))
    assert torch.equal(opened.model[1].weight, model[1].weight)
    assert open_model("their_models:make", size=20).count == 3  # with the weights that the function gives


def test_a_class_gets_the_number_of_classes_of_its_weights():
    torch.save({"fc.weight": torch.ones(4, 3), "fc.bias": torch.zeros(4)}, "w.pth")
    opened = open_model("their_models:Small", "w.pth", size=10)
    assert opened.count == 4
    assert opened.model.fc.weight.eq(1).all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("their_models:fails", "failed: ValueError: no luck"),
        ("their_models:wrong", "returned int; expected an nn.Module"),
        ("their_models:needs", "needs path"),
        ("their_models:nothing", "cannot be imported"),
        ("no_such_module:make", "cannot be imported"),
        ("hf:nowhere", "nothing at nowhere.*hf download nowhere --local-dir"),
        ("timm/resnet18", "weights were not given"),
        (3, "model is a int"),
    ],
)
def test_unreadable_input_error_names_the_reason(name, words):
    with pytest.raises(SightlineError, match=words):
        open_model(name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": ["a", "b"]}, "names 2 classes; the model has 3"),
        ({"classes": "nowhere.txt"}, "there is no file 'nowhere.txt'"),
        ({"mean": [0.5, 0.5]}, "mean has 2 values; expected one, or one for each of 3 channels"),
        ({"mean": [123.7, 116.3, 103.5]}, "divide them by 255"),
        ({"mean": []}, "mean has 0 values"),
        ({"size": 0}, "size is 0"),
        ({"size": 2}, "does not take images of this size .* --size"),
    ],
)
def test_options_that_do_not_fit_are_named(options, words):
    with pytest.raises(SightlineError, match=words):
        open_model(tiny(), **options)


def test_spaces_and_blank_lines_at_the_end_of_a_file_of_classes_do_not_count():
    with open("names.txt", "wb") as file:
        file.write(b"\xef\xbb\xbfa \r\nb c\r\n c\r\n\r\n \r\n")
    assert open_model(tiny(), classes="names.txt").classes == ["a", "b c", "c"]


def test_classes_of_the_data_are_matched_by_name_where_both_have_names(make_objects):
    data = make_objects(count=6, classes=("a", "b", "c"))
    opened = open_model(tiny(), classes=["c", "a", "b"])
    with pytest.warns(UserWarning, match="another order"):
        found = opened.match(data)
    assert found.classes == ["c", "a", "b"]
    assert [found.classes[i] for i in found.label_list()] == [data.classes[i] for i in data.label_list()]
    assert open_model(tiny()).match(data) is data  # nothing names the model's classes
    with pytest.raises(SightlineError, match="are unknown to the model: 'b'"):
        open_model(tiny(), classes=["a", "c", "d"]).match(data)
    with pytest.raises(SightlineError, match=r"5 classes without names and the data has 3; .* --classes"):
        open_model(tiny(5)).match(data)


def test_one_logit_classifies_two_classes():
    assert open_model(tiny(1)).count == 2


def test_parameters_of_half_precision_are_converted_with_a_note():
    opened = open_model("their_models:half", size=8)
    assert {p.dtype for p in opened.model.parameters()} == {torch.float32}
    assert "the parameters were converted from float16 to float32" in opened.notes
    assert torch.isfinite(opened.model(torch.rand(1, 3, 8, 8))).all()
