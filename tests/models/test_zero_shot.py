"""Classifiers over texts: their logits are those of CLIP and SigLIP, and all that works on a classifier works on them."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.io import write_png

import sightline as sl
from clip_folders import save_clip, save_open_clip, tiny_model, tiny_tokenizer
from sightline.errors import SightlineError
from sightline.evaluation import evaluate_model
from sightline.exporting.writing import export_run
from sightline.models import ZeroShotClassifier, load_model, open_model, zero_shot_classifier
from sightline.network.head import head_name
from sightline.runs import load_run

pytest.importorskip("transformers")
CLASSES = ["cat", "dog", "bird"]


def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def tokens(texts: list[str], kind: str = "CLIP") -> dict[str, Tensor]:
    found = tiny_tokenizer()(texts, padding="max_length", max_length=10, return_tensors="pt")
    return {key: found[key] for key in (("input_ids",) if kind == "Siglip" else ("input_ids", "attention_mask"))}


@pytest.mark.parametrize("kind", ["CLIP", "Siglip", "MetaClip2"])
def test_the_logits_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    whole = save_clip(tmp_path, kind)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    opened = open_model(f"hf:{tmp_path}", classes=tmp_path / "classes.txt")
    assert opened.names == CLASSES
    assert opened.input_spec == sl.InputSpec((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (32, 32))
    with torch.no_grad():
        texts = tokens([f"a photo of a {name}." for name in CLASSES], kind)
        expected = whole(pixel_values=images(), **texts).logits_per_image
        torch.testing.assert_close(opened.model(images()), expected)
    assert head_name(opened.model) == ("head",)


def test_an_embedding_is_the_mean_over_templates() -> None:
    whole = tiny_model("CLIP")
    templates = ["a photo of the {}.", "the {}"]
    model, spec = zero_shot_classifier(whole, CLASSES, templates, tokenize=tokens)
    assert spec.size == (32, 32)
    with torch.no_grad():
        rows = []
        for name in CLASSES:
            texts = whole.get_text_features(**tokens([template.format(name) for template in templates])).pooler_output
            rows.append(F.normalize(F.normalize(texts, dim=1).mean(0), dim=0))
        found = F.normalize(whole.get_image_features(images()).pooler_output, dim=1)
        expected = whole.logit_scale.exp() * found @ torch.stack(rows).T
        torch.testing.assert_close(model(images()), expected)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_zero_shot_classifier_is_explained_by_every_kind_of_explainer(kind: str) -> None:
    model, _ = zero_shot_classifier(tiny_model(kind), CLASSES, tokenize=lambda texts: tokens(texts, kind))
    names = [
        "gradcam", "layercam", "scorecam", "ablationcam", "saliency", "attention_rollout", "transformer_attribution",
        "legrad", "attnlrp", "grad_eclip",
    ]  # fmt: skip
    for name in names:
        maps = sl.explain(model, images(), name, targets=torch.tensor([0, 2, 1]))
        assert maps.shape == (3, 32, 32)
        assert maps.amax() == 1, name
    contrast = sl.explain(model, images(), "grad_eclip", sl.targets.Contrast(0, 1))
    by_hand = sl.explain(model, images(), "grad_eclip", lambda logits: logits[:, 0] - logits[:, 1])
    torch.testing.assert_close(contrast, by_hand)


def test_zero_shot_classifier_trains_and_is_measured() -> None:
    model, _ = zero_shot_classifier(tiny_model("CLIP"), CLASSES, tokenize=tokens)
    masks = torch.zeros(3, 32, 32, dtype=torch.uint8)
    masks[:, 8:20, 4:24] = 1
    batch = sl.Batch(images(), torch.tensor([0, 1, 2]), masks=masks, indices=torch.arange(3))
    table = evaluate_model(model, [batch], ["grad_eclip", "gradcam"], ["accuracy", "energy_in_mask", "average_drop"])
    assert table.facts["left_out"] == {}
    objective = sl.Objective(model, sl.SegmentOverlap())
    before = model.head.weight.detach().clone()
    optimizer = torch.optim.SGD(objective.parameters(), 0.1)
    objective(batch)["loss"].backward()
    optimizer.step()
    assert not torch.equal(model.head.weight, before)


def test_a_recipe_trains_the_texts_of_its_classes(tmp_path: Path) -> None:
    save_clip(tmp_path / "clip", "CLIP")
    for index in range(12):
        (file := tmp_path / "data" / CLASSES[index % 3] / f"{index}.png").parent.mkdir(parents=True, exist_ok=True)
        write_png(torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8), str(file))
    changes = [
        "name=texts", f"data={{name: folder, root: {tmp_path / 'data'}, val: 0.25, test: 0.25}}", "image_size=32",
        f"model={{name: 'hf:{tmp_path / 'clip'}', weights: null, layer: null}}", "stages=[{epochs: 1, lr: 1.0e-12}]",
        "guide=null", "evaluation={splits: null, explainers: [gaussian], metrics: [accuracy]}",
    ]  # fmt: skip
    run = sl.train("demo-cross-entropy", changes, tmp_path / "runs", device="cpu")
    loaded = load_run(run.path, "cpu")
    expected, _ = load_model(f"hf:{tmp_path / 'clip'}", classes=loaded.classes)
    torch.testing.assert_close(loaded.model(images()), expected.eval()(images()))
    card = json.loads((export_run(run, tmp_path / "out", ["state-dict"]) / "model.json").read_text())
    scope: dict[str, Any] = {}
    with contextlib.chdir(tmp_path / "out"):
        exec("\n".join(card["load"]["state-dict"]), scope)
    torch.testing.assert_close(scope["model"](images()), expected(images()))


def test_zero_shot_classifier_takes_any_encoder_with_embeddings() -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    embeddings = torch.randn(3, 4)
    model = ZeroShotClassifier(encoder, embeddings, 5.0, -1.0)
    expected = 5 * F.cosine_similarity(encoder(images())[:, None], embeddings[None], dim=2) - 1
    torch.testing.assert_close(model(images()), expected)
    assert sl.explain(model, images(), layer="encoder.1").shape == (3, 32, 32)
    with pytest.raises(SightlineError, match=r"embeddings have shape \(1, 4\)"):
        ZeroShotClassifier(encoder, embeddings[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["cat"]}, "classes is .*; expected the names of two classes or more"),
        ({"classes": "cat"}, "classes is 'cat'"),
        ({"classes": ["cat", "dog", "cat"]}, "classes holds 'cat' twice"),
        ({"templates": ["a photo"]}, "templates is .* with {} for the name"),
        ({"templates": []}, "templates is"),
        ({"classes": ["cat", "a photo of the cat of the dog of the bird"]}, "has 17 tokens; expected at most 10"),
    ],
)
def test_zero_shot_classifier_invalid_options_raise(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_clip(tmp_path, "CLIP")
    with pytest.raises(SightlineError, match=message):
        zero_shot_classifier(tmp_path, **{"classes": CLASSES} | options)


def test_a_folder_without_classes_and_models_without_texts_are_named(tmp_path: Path) -> None:
    save_clip(tmp_path, "CLIP")
    for call in (open_model, load_model):
        with pytest.raises(SightlineError, match="model of images and texts, which has no fixed classes"):
            call(f"hf:{tmp_path}")
    with pytest.raises(SightlineError, match="tokenize was not given"):
        zero_shot_classifier(tiny_model("CLIP"), CLASSES)
    with pytest.raises(SightlineError, match="model is a Linear; expected one of transformers with images and texts"):
        zero_shot_classifier(nn.Linear(2, 2), CLASSES, tokenize=tokens)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SightlineError, match="cannot be opened by transformers"):
        zero_shot_classifier(tmp_path, CLASSES)


def test_a_folder_of_open_clip(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    whole = save_open_clip(tmp_path)
    opened = open_model(f"hf:{tmp_path}", classes=CLASSES)
    assert opened.input_spec == sl.InputSpec((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (32, 32))
    texts = open_clip.get_tokenizer(f"local-dir:{tmp_path}")([f"a photo of a {name}." for name in CLASSES])
    with torch.no_grad():
        cosines = whole.encode_image(images(), normalize=True) @ whole.encode_text(texts, normalize=True).T
        torch.testing.assert_close(opened.model(images()), whole.logit_scale.exp() * cosines)
    assert sl.Tap(opened.model).layers[0].name == "encoder.transformer.resblocks.1.ln_1"
    for name in ("gradcam", "legrad", "grad_eclip", "attnlrp"):
        assert sl.explain(opened.model, images(), name).amax() == 1
