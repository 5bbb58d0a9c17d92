import pickle

import pytest
import torch
from torch import Tensor

import sightline as sl
from region_classifier import RegionClassifier
from sightline.metrics import METRICS, Coherency, Complexity, Insertion, Observation, PerImageMetric


class Peak(PerImageMetric):
    """The least that an extension writes."""

    def compute_per_image(self, observation: Observation) -> Tensor:
        return observation.require("maps").amax((1, 2))


def test_an_extension_needs_measure_alone() -> None:
    metric = Peak()
    metric.update(maps=torch.eye(3)[None] * 0.5)
    assert metric.compute() == 0.5
    with pytest.raises(sl.SightlineError, match="needs maps"):
        metric.update(labels=torch.zeros(1))


def test_updates_recorded_observations_and_resets_all_count() -> None:
    metric = Complexity()
    metric.update(torch.ones(1, 2, 2))
    assert metric.compute() == 1
    metric.update_batch(Observation(maps=torch.zeros(3, 2, 2)))
    assert metric.compute() == 0.25
    assert metric.n == 4
    assert metric(torch.full((2, 2, 2), 0.5)) == 0.5  # forward: the value of this batch
    assert metric.compute() == pytest.approx(2 / 6)
    metric.reset()
    metric.update(torch.ones(2, 2, 2))
    assert (metric.compute(), metric.n) == (1, 2)


def test_an_observation_works_each_thing_out_once_and_can_be_cut() -> None:
    calls = []

    def mean(observation: Observation, power: int) -> float:
        calls.append(power)
        return float((observation.require("maps") ** power).mean())

    observation = Observation(maps=torch.tensor([[[2.0]], [[4.0]]]), labels=torch.tensor([5, 6]))
    assert [observation.cached(mean, 1), observation.cached(mean, 1), observation.cached(mean, 2)] == [3, 3, 10]
    assert calls == [1, 2]
    some = observation.take(torch.tensor([False, True]))
    assert (some.cached(mean, 1), some.require("labels").tolist()) == (4, [6])


def test_every_metric_says_what_it_needs() -> None:
    assert {"miou", "pointing_game", "energy_in_mask", "insertion", "deletion", "accuracy"} <= set(METRICS.names())
    for entry in METRICS:
        assert entry.capabilities == entry.factory.capabilities()
        assert entry.summary
    needs = {name: {entry.name for entry in METRICS if entry.capabilities[name]} for name in Peak.capabilities()}
    noise = {"foreground_noise_accuracy", "background_noise_accuracy", "rfs", "normalized_rfs"}
    alone = {"no_fg_accuracy", "only_bg_b_accuracy", "only_bg_t_accuracy"}
    mixed = {"mixed_same_accuracy", "mixed_rand_accuracy", "mixed_next_accuracy", "only_fg_accuracy"}
    backgrounds = alone | mixed | {"bg_gap"}
    assert needs["needs_masks"] == {"miou", "pointing_game", "energy_in_mask"} | noise | backgrounds
    marks = {"mark_removed_accuracy", "mark_pasted_accuracy", "mark_swapped_accuracy"}
    assert needs["needs_avoid"] == {"energy_in_avoid"} | marks
    assert needs["needs_boxes"] == {"box_localization", "energy_in_box", "pointing_game_in_box", "corloc"}
    assert needs["needs_explainer"] == {"coherency", "adcc", "arcc", "explanation_consistency", "view_stability"}
    assert needs["slow"] == {"insertion", "deletion", "morf", "lerf", "lerf_minus_morf", "road", "arcc"}
    assert needs["needs_parts"] == needs["needs_layer"] == {"part_interpretability"}
    mapless = (
        {"accuracy", "worst_group_accuracy", "ece", "fgsm_accuracy", "part_interpretability"}
        | noise
        | backgrounds
        | marks
    )
    assert needs["needs_maps"] == set(METRICS.names()) - mapless
    lower = {"deletion", "average_drop", "complexity", "morf", "ece", "bg_gap", "energy_in_avoid"} | alone
    assert needs["higher_is_better"] == set(METRICS.names()) - lower


def test_metrics_can_be_pickled(region: Tensor) -> None:
    images, maps = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8)
    for metric in (Insertion(RegionClassifier(region), steps=4), Coherency(RegionClassifier(region), "gaussian")):
        metric.update(images, maps)
        copy = pickle.loads(pickle.dumps(metric))
        copy.update(images, maps)
        torch.testing.assert_close(copy.compute(), metric.compute())
