"""Writes docs/reference/models.md, the default layers of all families: `python tests/families_page.py`, some minutes."""

import gc
import warnings
from collections.abc import Callable
from pathlib import Path

import timm
import torchvision
import transformers
from torch import nn

from families import Finding, examine
from sightline.network.layout import Layer
from zoo import HUGGING_FACE, TIMM, TORCHVISION, Size, hugging_face_model, timm_model, torchvision_model

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "models.md"
TEXT = """# Models and their layers

sightline chooses the target layer by the family of the model, and knows the layout of this layer's output. To use
[another layer](../explanation/tap.md#which-layer), pass its name: `sl.explain(model, images, layer="layer3")`.

One or more small models of each family were tested, with random weights. The image is not square if the family allows
this. A model works if its default layer

- runs, and has at least 2 x 2 positions;
- is not early in the model, not after the pooling, and not the output; in a CNN, no convolution over several positions
  follows it;
- shows a changed corner of the image at that corner;
- has gradients at most positions, and its Grad-CAM is not flat.

| library | families | models tried | work | no default layer | fail |
| --- | --- | --- | --- | --- | --- |
{summary}

*No default layer*: sightline does not choose a layer; the error lists candidates. Models of timm that do not classify
(their names end in `_enc`) were not tried. `python tests/families_page.py` writes this page, and the slow tests in
`tests/network/test_families.py` check it.

## CLIP and SigLIP

A folder of CLIP, SigLIP or MetaCLIP 2, as transformers or open_clip saves it, is a classifier over texts: name the classes.

```
sightline explain cat.jpg --model hf:clip-vit-base-patch32 --classes classes.txt --methods grad_eclip,gradcam
```

```text
opened = sl.open_model("hf:clip-vit-base-patch32", classes=["cat", "dog"])
templates = ["a photo of a {{}}.", "a drawing of a {{}}."]
model, spec = sl.models.zero_shot_classifier("clip-vit-base-patch32", ["cat", "dog"], templates)
```

The logit of a class is the model's score for an image and the text "a photo of a NAME.", or the mean over your templates.
The embeddings of the texts are computed once, and become the weights of the linear layer `head`. The result is an ordinary
classifier: you can explain, evaluate, diagnose and fix it. A recipe with `model: hf:FOLDER` trains it from the names of the
data's classes. A target can be a contrast of two texts: `sl.targets.Contrast(0, 1)`. Nothing is downloaded. For any other
encoder with one embedding per class, use `sl.models.ZeroShotClassifier(encoder, embeddings, scale)`.
"""


def main() -> None:
    """Examine every model of the zoo, and write the page."""
    warnings.simplefilter("ignore")
    summary, tables = [], []
    for library, names, load, family_of in (
        (f"timm {timm.__version__}", TIMM, timm_model, _module),
        (f"torchvision {torchvision.__version__.partition('+')[0]}", TORCHVISION, torchvision_model, str),
        (f"Hugging Face transformers {transformers.__version__}", HUGGING_FACE, hugging_face_model, str),
    ):
        found: dict[str, dict[str, Finding]] = {}
        for name in names:
            finding = found.setdefault(family_of(name), {})[name] = _examined(load, name)
            print(library, name, finding, flush=True)
        findings = [finding for family in found.values() for finding in family.values()]
        refused, failed = sum(bool(f.refusal) for f in findings), sum(bool(f.faults) for f in findings)
        works = len(findings) - refused - failed
        summary.append(f"| {library} | {len(found)} | {len(findings)} | {works} | {refused} | {failed} |")
        rows = [_row(family, found[family], library) for family in sorted(found, key=str.lower)]
        head = "| family | models | tried | layer | layout | result |\n| --- | --- | --- | --- | --- | --- |"
        tables.append("\n".join([f"\n## {library}\n", head, *rows, ""]))
    PAGE.write_text(TEXT.format(summary="\n".join(summary)) + "".join(tables), encoding="utf-8")


def _examined(load: Callable[[str], tuple[nn.Module, Size]], name: str) -> Finding:
    gc.collect()
    try:
        return examine(*load(name))
    except Exception as error:  # any error but a refusal of sightline's own is a fault, and the page says so
        return Finding(None, (0, 0), (f"raises {type(error).__name__}",))


def _module(name: str) -> str:
    return timm.models.model_entrypoint(name).__module__.rpartition(".")[2]


def _row(family: str, tried: dict[str, Finding], library: str) -> str:
    """Return a line of the table: a family's layers and layouts, and which of its models do not work."""
    count = len(timm.list_models(module=family, exclude_filters="*_enc")) if library.startswith("timm") else 1
    layers = [finding.layer for finding in tried.values() if finding.layer]
    names = ", ".join(dict.fromkeys(f"`{layer.name}`" for layer in layers))
    layouts = ", ".join(dict.fromkeys(map(_told, layers)))
    bad = [f"{name}: {', '.join(f.faults) or 'refused'}" for name, f in tried.items() if f.faults or f.refusal]
    return f"| {family} | {count} | {len(tried)} | {names} | {layouts} | {'; '.join(bad) or 'works'} |"


def _told(layer: Layer) -> str:
    return layer.layout.replace("_", " ") + (f", {layer.prefix} prefix" if layer.prefix else "")


if __name__ == "__main__":
    main()
