"""WAE: the map that it learns, and that no decoder loss has a part in training its classifier."""

from dataclasses import replace

import torch
from torch.autograd import grad

import sightline as sl
from networks import TinyCNN, batch_of
from sightline.attributions.owen import owen_values
from sightline.explainers import create_explainer
from sightline.guides import WAE


def test_weighted_shap_sums_the_values_of_classes_by_probability() -> None:
    torch.manual_seed(1)
    model, images = TinyCNN().double().eval(), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    options = {"evaluations": 10**6, "masker": 0.5}  # more than there are: everything is expanded
    expected = torch.zeros(2, 4, 4, dtype=torch.float64)
    for label in range(3):
        values = owen_values(model, images, label, **options).values.sum(1)
        expected += model(images).softmax(1)[:, label, None, None].detach() * values
    found = create_explainer("weighted_shap", raw=True, **options)(model, images, None, None, None)
    torch.testing.assert_close(found, expected)
    scaled = create_explainer("weighted_shap", **options)(model, images, None, None, None)
    assert scaled.min() == 0
    torch.testing.assert_close(scaled.amax((1, 2)), torch.ones(2, dtype=torch.float64))


def test_the_cross_entropy_sees_the_code_as_a_constant() -> None:
    torch.manual_seed(4)
    model = TinyCNN().double()
    batch = replace(batch_of(), maps=torch.randn(4, 8, 8, dtype=torch.float64))
    objective = sl.Objective(model, WAE(weight=0.5, size=8))
    branch, output = model.two_branch, objective(batch)
    code = branch.lep(batch.images).detach()
    logits = torch.cat([model.classifier(model.head(model.features(batch.images))), code], 1)
    logits = logits @ branch.classifier.weight.T + branch.classifier.bias
    task = -logits.log_softmax(1)[range(4), batch.labels].mean()
    size = batch.maps.square().mean((1, 2), keepdim=True).sqrt()
    error = ((branch.decoder(branch.lep(batch.images)) - batch.maps / size) ** 2).mean()
    torch.testing.assert_close(output["loss"], task + 0.5 * error)
    torch.testing.assert_close(output["wae"], error.detach())
    output["loss"].backward()
    head = list(branch.classifier.parameters())
    coders = [*branch.lep.parameters(), *branch.decoder.parameters()]
    for parameters, part in ((head, task), (coders, 0.5 * error)):
        for parameter, expected in zip(parameters, grad(part, parameters, allow_unused=True)):
            torch.testing.assert_close(parameter.grad, expected)
