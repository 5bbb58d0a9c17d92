"""An exported model's folder for the Hugging Face Hub, up to the upload."""

from pathlib import Path

import pytest
import torch

import sightline as sl
from sightline.errors import SightlineError
from sightline.exporting import export_model, push_to_hub
from sightline.exporting.hub import hub_card

hub = pytest.importorskip("huggingface_hub", reason="pip install 'sightline-xai[hf]'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )
    spec = sl.InputSpec((0.5,) * 3, (0.25,) * 3, (32, 32))
    return export_model(model, tmp_path / "mine", ["state-dict"], input_spec=spec, classes=["cat", "dog"])


def test_the_hub_reads_the_card(folder: Path) -> None:
    text = hub_card(
        folder, values={"accuracy": 0.9125}, data="40 images of the test split", limits=["Cats only."], license="mit"
    )
    card = hub.ModelCard(text)
    assert card.data.to_dict() == {
        "library_name": "pytorch", "pipeline_tag": "image-classification", "license": "mit",
        "tags": ["image-classification", "sightline"],
    }  # fmt: skip
    for part in (
        "cat, dog",
        "| accuracy | 0.9125 |",
        "40 images of the test split",
        "- Cats only.",
        "model.safetensors",
    ):
        assert part in card.text


def test_a_hub_that_cannot_be_reached_leaves_a_complete_folder(folder: Path) -> None:
    with pytest.raises(SightlineError, match=r"the Hub did not take jane/pets: .*the folder .* is complete"):
        push_to_hub(folder, "jane/pets", endpoint="http://127.0.0.1:9", token="none")
    assert {file.name for file in folder.iterdir()} == {"README.md", "model.json", "model.safetensors"}
    assert (folder / "README.md").read_text() == hub_card(folder)


def test_a_wrong_name_and_a_wrong_folder_are_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SightlineError, match="repo is 'pets'; expected OWNER/NAME"):
        push_to_hub(folder, "pets")
    with pytest.raises(SightlineError, match=r"cannot read .*model\.json: it is missing"):
        push_to_hub(tmp_path, "jane/pets")
    assert not (tmp_path / "README.md").exists()
