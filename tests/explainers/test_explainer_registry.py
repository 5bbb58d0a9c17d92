"""What can be asked about an explainer by its name."""

import sightline as sl
from sightline.explainers import layer_for, list_explainers, needs_layer


def test_needs_layer_follows_what_the_explainer_declares() -> None:
    assert needs_layer("gradcam")
    assert not needs_layer("lots")
    assert needs_layer("an explainer that is not registered")


def test_layer_for_passes_the_layer_only_where_it_is_the_target_layer() -> None:
    assert layer_for("scorecam", "layer4") == "layer4"
    assert layer_for("scorecam", None) is None
    assert layer_for("partition_shap", "layer4") is None


def test_list_explainers_names_can_all_be_created() -> None:
    for name in list_explainers():
        assert isinstance(sl.create_explainer(name), sl.Explainer)
