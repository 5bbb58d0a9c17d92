"""CLIP, SigLIP and their like as classifiers: each class is a text, and its logit says how well an image and the text match."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.optional import requires_extra
from sightline.data.files import locate
from sightline.errors import SightlineError
from sightline.models.hugging_face import AGAIN, OPEN_CLIP, input_of
from sightline.models.made import Made, spec_of
from sightline.network.input_spec import InputSpec
from sightline.network.modes import evaluating
from sightline.network.tap import first_of

TEMPLATES = ("a photo of a {}.",)
# How they were trained to see images.
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SIGLIP = ((0.5,) * 3, (0.5,) * 3)


class ZeroShotClassifier(nn.Module):
    """A classifier whose logit of a class is scale x cosine(image, class) + bias.

    It is an ordinary model: `head` is a linear layer whose weights are the embeddings times the scale, so it can be
    explained, diagnosed, and fitted again on frozen features.

    Args:
        encoder: from images to embeddings (B, D), whose lengths do not count.
        embeddings: (K, D), one for each class; their lengths do not count either.
        scale: factor of the cosines.
        bias: of every logit, as SigLIP has it; None = none.
    """

    def __init__(self, encoder: nn.Module, embeddings: Tensor, scale: float = 1.0, bias: float | None = None) -> None:
        super().__init__()
        if embeddings.ndim != 2 or len(embeddings) < 2:
            raise SightlineError(
                f"embeddings have shape {tuple(embeddings.shape)}; expected (K, D), one for each of K >= 2 classes"
            )
        self.encoder = encoder
        self.head = nn.Linear(embeddings.shape[1], len(embeddings), bias=bias is not None)
        self.head.to(embeddings)
        with torch.no_grad():
            self.head.weight.copy_(scale * F.normalize(embeddings, dim=1))
            if bias is not None:
                self.head.bias.fill_(bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(F.normalize(first_of(self.encoder(images)), dim=1))


class _Tower(nn.Module):
    """The images' side of a model of transformers."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.projection = getattr(model, "visual_projection", nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(self.vision_model(pixel_values=images).pooler_output)


def zero_shot_classifier(
    source: str | Path | nn.Module,
    classes: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    *,
    tokenize: Callable[[list[str]], Any] | None = None,
    size: int | None = None,
) -> tuple[ZeroShotClassifier, InputSpec]:
    """Return a classifier over texts, and the input that it expects.

    Args:
        source: a local folder of CLIP, SigLIP, MetaCLIP 2 and the like, as transformers or open_clip saves them, with its
            tokenizer; or such a model of transformers, together with `tokenize`. Nothing is downloaded.
        classes: the name of each class.
        templates: texts with {} instead of the name; the embedding of a class is the mean over them.
        tokenize: from texts to the arguments of the model's `get_text_features`, as a dict; for a model that is given itself.
        size: side of the input in pixels; None = the model's own.

    Raises:
        SightlineError: there is no such model, a text is too long for it, or classes or templates are not as above.
    """
    made = make_zero_shot(source, classes, templates, tokenize, size)
    assert isinstance(made.model, ZeroShotClassifier)
    return made.model, made.spec


def make_zero_shot(
    source: str | Path | nn.Module,
    classes: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    tokenize: Callable[[list[str]], Any] | None = None,
    size: int | None = None,
) -> Made:
    """Make a classifier as `zero_shot_classifier` does, with the names of its classes and notes."""
    prompts = _prompts(classes, templates)
    if isinstance(source, nn.Module):
        if tokenize is None:
            raise SightlineError(
                "tokenize was not given; expected a function from texts to the arguments of get_text_features"
            )
        return _of_transformers(source, None, tokenize, prompts, list(classes), size)
    folder = locate(source, "model")
    if (folder / OPEN_CLIP).is_file():
        return _of_open_clip(folder, prompts, list(classes), size)
    with requires_extra("hf", f"the model in {folder}"):
        from transformers import AutoModel, AutoTokenizer
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers rejects a folder in many ways
        reason = " ".join(str(error).split())[:300]
        raise SightlineError(f"model: {folder} cannot be opened by transformers: {reason}; {AGAIN}") from error
    return _of_transformers(model, folder, _tokenizing(model, tokenizer), prompts, list(classes), size)


def _prompts(classes: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Return the texts of each class."""
    if isinstance(classes, str) or len(classes) < 2:
        raise SightlineError(f"classes is {classes!r}; expected the names of two classes or more")
    if twice := sorted({name for name in classes if list(classes).count(name) > 1}):
        raise SightlineError(f"classes holds {twice[0]!r} twice; expected each name once")
    if isinstance(templates, str) or not templates or any("{}" not in template for template in templates):
        raise SightlineError(f"templates is {templates!r}; expected texts with {{}} for the name of a class")
    return [[template.replace("{}", name) for template in templates] for name in classes]


def _embedded(prompts: list[list[str]], embed: Callable[[list[str]], Tensor]) -> Tensor:
    """Return the embedding (K, D) of each class: the mean of those of its texts, each of length 1."""
    with torch.inference_mode(False), torch.no_grad():
        return torch.stack([F.normalize(embed(texts), dim=1).mean(0) for texts in prompts])


def _tokenizing(model: Any, tokenizer: Any) -> Callable[[list[str]], dict[str, Tensor]]:
    """Return a function from texts to the arguments of the text side, padded to its length as in training."""
    longest = model.config.text_config.max_position_embeddings

    def tokenize(texts: list[str]) -> dict[str, Tensor]:
        tokens = tokenizer(texts, padding="max_length", max_length=longest, return_tensors="pt")
        if tokens["input_ids"].shape[1] > longest:
            raise SightlineError(
                f"classes: the text {max(texts, key=len)!r} has {tokens['input_ids'].shape[1]} tokens; expected at most "
                f"{longest}, the longest that the model takes"
            )
        # SigLIP was trained without a mask: padding counts there.
        taken = ("input_ids",) if _is_siglip(model) else ("input_ids", "attention_mask")
        return {key: tokens[key] for key in taken if key in tokens}

    return tokenize


def _of_transformers(
    model: Any, folder: Path | None, tokenize: Callable[[list[str]], Any], prompts: list[list[str]], classes: list[str],
    size: int | None,
) -> Made:  # fmt: skip
    if not all(hasattr(model, name) for name in ("vision_model", "get_text_features", "logit_scale")):
        raise SightlineError(
            f"model is a {type(model).__name__}; expected one of transformers with images and texts, such as CLIPModel or "
            "SiglipModel"
        )

    def embed(texts: list[str]) -> Tensor:
        found = model.get_text_features(**tokenize(texts))
        return found if isinstance(found, Tensor) else found.pooler_output

    with evaluating(model):
        embeddings = _embedded(prompts, embed)
    bias = float(model.logit_bias.detach()) if hasattr(model, "logit_bias") else None
    made = ZeroShotClassifier(_Tower(model), embeddings, float(model.logit_scale.detach().exp()), bias)
    if folder is not None and (folder / "preprocessor_config.json").is_file():
        spec, notes = input_of(folder, model, size)
        return Made(made.train(), spec, classes, notes)
    mean, std = SIGLIP if _is_siglip(model) else CLIP
    spec = InputSpec(mean, std, spec_of(model, size)[0].size)
    note = f"nothing says how {type(model).__name__} was trained to see images; the normalization is assumed to be that of "
    note += f"{'SigLIP' if _is_siglip(model) else 'CLIP'}; give mean and std if it was another"
    return Made(made.train(), spec, classes, [note])


def _is_siglip(model: Any) -> bool:
    return "siglip" in model.config.model_type


def _of_open_clip(folder: Path, prompts: list[list[str]], classes: list[str], size: int | None) -> Made:
    with requires_extra("openclip", f"the model of open_clip in {folder}"):
        import open_clip
    name = f"local-dir:{folder}"
    try:
        model = open_clip.create_model(name)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip rejects a folder in many ways
        reason = " ".join(str(error).split())[:300]
        raise SightlineError(f"model: {folder} cannot be opened by open_clip: {reason}; {AGAIN}") from error
    with evaluating(model):
        embeddings = _embedded(prompts, lambda texts: model.encode_text(tokenizer(texts)))
    bias = None if model.logit_bias is None else float(model.logit_bias.detach())
    made = ZeroShotClassifier(model.visual, embeddings, float(model.logit_scale.detach().exp()), bias)
    side = (size, size) if size else model.visual.image_size
    side = (side, side) if isinstance(side, int) else tuple(side)
    return Made(made.train(), InputSpec(tuple(model.visual.image_mean), tuple(model.visual.image_std), side), classes)
