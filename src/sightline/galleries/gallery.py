"""Galleries: the same images under several trained models, each with the map of where it looked."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal, Self

import torch
from matplotlib.figure import Figure
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import cosine_similarity

from sightline._core.registry import Entry
from sightline._core.strict import Positive, Real, StrictModel
from sightline.data import DATASETS
from sightline.data.batch import Batch
from sightline.data.loader import create_loader
from sightline.errors import SightlineError
from sightline.explainers import create_explainer
from sightline.map_studies.panel import PICTURES, draw
from sightline.metrics.localization import energy_in_mask
from sightline.metrics.noise import noised
from sightline.network.views import IDENTITY, AffineView, View
from sightline.regions.backgrounds import regions_of
from sightline.reporting.markdown import markdown
from sightline.reporting.overlay import Overlay, show
from sightline.reporting.thumbnails import draw_outline, enlarge, outline
from sightline.runs import read_recipe
from sightline.studies.image_selection import ImageSelection
from sightline.studies.recipes import Keys, RecipeStudy, file_name, overrides
from sightline.studies.study import KINDS, Done, Method, Part, check_labels, check_methods, scale_count
from sightline.studies.subject import Subject, run_subject
from sightline.studies.tables import caption, to_bytes
from sightline.training import train

TOGETHER = 16  # images that are explained in one call


class Trained(StrictModel):
    """A model of the gallery.

    Attributes:
        label: Name of the model in the figure.
        keys: Recipe keys that this model changes, dotted, with their values.
    """

    label: str
    keys: Keys = Field(default_factory=dict)


class Noise(StrictModel):
    """Gaussian noise on a part of the image.

    Attributes:
        region: `object` or `background`, as the mask of the image has it.
        level: Standard deviation of the noise, for pixels in [0, 1].
    """

    region: Literal["object", "background"] = "background"
    level: Annotated[Real, Field(gt=0)]


class Change(StrictModel):
    """What is done to an image before the models see it.

    Attributes:
        label: what the figure calls it.
        noise: drawn by the study's seed, the same for every model; null adds none. It needs the image's mask.
        view: options of `sightline.network.views.AffineView`, such as `turns` and `flip`; empty leaves the image unchanged.
    """

    label: str
    noise: Noise | None = None
    view: dict[str, Any] = Field(default_factory=dict)

    def seen_as(self) -> View:
        """Return the view; without interpolation where flips and quarter turns need none."""
        kind = View if self.view.keys() <= {"flip", "turns"} else AffineView
        return Entry(f"view of {self.label!r}", kind)(**self.view)


PLAIN = Change(label="")


@KINDS.register("gallery")
class Gallery(RecipeStudy):
    """Images next to the maps of several models that a recipe trains, for the class that each of them predicts.

    Every model is an ordinary run folder, under `runs/` in the study's. A run that was killed continues from its checkpoint.

    Attributes:
        models: what is compared.
        method: explains them.
        split: where the images come from; null takes the main test split.
        images: places or classes (their first image); null draws `num_images` of them.
        num_images: how many are drawn where `images` is null.
        select_low_energy: instead of first or drawn images take those that the first model gets right although the
            least of its map is on the object: one of each class of `images`, or `num_images` of the whole split.
        changes: every image is shown under each of them; empty shows it unchanged.
        outline: draw the border of the object where it is known.
        abreast: how many blocks of images stand side by side.
    """

    kind: Literal["gallery"]
    models: Annotated[list[Trained], Field(min_length=1)]
    method: Method = Method(label="Grad-CAM", name="gradcam")
    split: str | None = None
    images: Annotated[list[int | str], Field(min_length=1)] | None = None
    num_images: Positive = 6
    select_low_energy: bool = False
    changes: list[Change] = Field(default_factory=list)
    outline: bool = True
    abreast: Positive = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_labels("models", [model.label for model in self.models], taken=("image", PICTURES))
        check_labels("changes", [change.label for change in self.changes])
        for change in self.changes:
            change.seen_as()
        if self.select_low_energy and any(isinstance(choice, int) for choice in self.images or []):
            raise ValueError(
                "images: with select_low_energy, images are told by their class; a place is one image already"
            )
        return self

    def parts(self) -> list[str]:
        """Return the parts: the images, then each model's maps."""
        return [PICTURES, *(model.label for model in self.models)]

    def scaled(self, scale: float) -> Self:
        """Fewer images, and less of what `scaled_keys` names."""
        number = scale_count(self.num_images if self.images is None else len(self.images), scale)
        less = super().scaled(scale)
        return less.model_copy(update={"images": self.images and self.images[:number], "num_images": number})

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Read every model's recipe, and open the data."""
        check_methods([self.method])
        worker = _Worker(self, device, folder)
        return lambda part: worker.pictures() if part == PICTURES else worker.maps(part)

    def table(self, done: Done) -> list[dict[str, Any]]:
        """Return one row per image, change and model."""
        return [
            {"image": path, "label": label, "change": change.label, "model": model.label}
            | {key: found[number][row] for key, found in done[model.label].values.items()}
            for model in self.models
            if {PICTURES, model.label} <= set(done)
            for row, (path, label) in enumerate(self._shown(done))
            for number, change in enumerate(self.changes or [PLAIN])
        ]

    def summary(self, done: Done) -> str:
        """Return the gallery, and what its maps have in common."""
        if PICTURES not in done:
            return ""
        number = len(self._shown(done))
        how = "drawn by the seed" if self.images is None else "as the study names them"
        if self.select_low_energy:
            how = (
                f"those that {self.models[0].label} gets right with the smallest share of its map on the object (selected, "
                "not drawn at random)"
            )
        header = ["Model", *(["Change"] if self.changes else []), "Right", "Map on the object"]
        header += ["Map as that of the unchanged image"] if self.changes else []
        rows = [
            [
                model.label,
                *([change.label] if self.changes else []),
                f"{sum(each['predicted'] == each['label'] for each in some)} of {number}",
                mean_of([each["energy_in_mask"] for each in some]),
                *([mean_of([each["similarity"] for each in some])] if self.changes else []),
            ]
            for model in self.models
            for change in self.changes or [PLAIN]
            if (some := [r for r in self.table(done) if (r["model"], r["change"]) == (model.label, change.label)])
        ]
        return "\n\n".join(
            [
                *([f"![{self.title}](figure.png)"] if set(self.parts()) <= set(done) else []),
                f"{number} images of {self.split or 'the test split'}, {how}; {self.method.label} of the class that each model "
                "predicts. "
                "The values are means over these images: the share of the map on the object"
                + (
                    ", and the cosine similarity of the map, turned back, to that of the unchanged image."
                    if self.changes
                    else "."
                ),
                markdown(header, rows),
            ]
        )

    def figures(self, done: Done) -> dict[str, Figure]:
        """Draw one line per image and change: the image, and each model's map of it."""
        changes, kept = self.changes or [PLAIN], done[PICTURES]
        images = _lines(kept.tensors["images"]).float() / 255  # (image and change, 3, H, W)
        maps = {model.label: _lines(done[model.label].tensors["maps"]).float() / 255 for model in self.models}
        overlay = show(images, maps)
        borders = [outline(mask) if self.outline and mask.any() else None for mask in _lines(kept.tensors["masks"])]

        def framed(images: Tensor) -> Tensor:
            return torch.stack([draw_outline(enlarge(picture), border) for picture, border in zip(images, borders)])

        overlays = {label: None if each is None else framed(each) for label, each in overlay.overlays.items()}
        lines = [(row, number) for row in range(len(kept.values["labels"])) for number in range(len(changes))]
        texts = {
            0: ["\n".join(filter(None, (kept.values["labels"][row], changes[n].label))) for row, n in lines],
        } | {
            place: [
                f"{'✓' if found['predicted'][n][row] == kept.values['labels'][row] else '✗'} "
                + caption(found["predicted"][n][row], found["probability"][n][row])
                for row, n in lines
            ]
            for place, model in enumerate(self.models, start=1)
            for found in [done[model.label].values]
        }
        return {"figure.png": draw(Overlay(framed(overlay.images), overlays, []), texts, self.abreast)}

    def _shown(self, done: Done) -> list[tuple[str, str]]:
        """Path and class of each image."""
        return list(zip(done[PICTURES].values["paths"], done[PICTURES].values["labels"]))


class _Worker:
    """A gallery's data and trained models."""

    def __init__(self, study: Gallery, device: torch.device, folder: Path) -> None:
        self.study, self.device, self.folder = study, device, folder
        seeded = {**study.keys, "seed": study.seed}
        self.recipes = {
            model.label: read_recipe(study.recipe, overrides({"name": file_name(model.label), **seeded, **model.keys}))
            for model in study.models
        }
        data = {str(recipe.data.model_dump()): recipe.data for recipe in self.recipes.values()}
        if len(data) > 1:
            raise SightlineError(f"{study.called} shows every model the same images; the recipes name different data")
        sides = {recipe.image_size for recipe in self.recipes.values()}
        side = sides.pop() if len(sides) == 1 else None
        if side is None:
            raise SightlineError(f"{study.called} shows every model the same images; give them all one size")
        self.side = side
        chosen = next(iter(data.values()))
        self.selection = ImageSelection(chosen, study.called, study.split)
        self.selection.splits = DATASETS.create(chosen.name, **chosen.options)  # whose errors name a recipe's keys
        self.selection.held_out.check_single_label(study.called)
        for choice in study.images or []:
            self.selection.members(choice) if isinstance(choice, str) else self.selection.find(choice)
        self.subjects: dict[str, Subject] = {}
        self.places: list[int] | None = None

    def pictures(self) -> Part:
        """Return the images as the models see them, and where their objects are."""
        batch = self._batch(self._places())
        labels = [self.selection.classes[label] for label in batch.labels.tolist()]
        paths = [self.selection.held_out.path(place) for place in self._places()]
        changed = [self._changed(change, batch) for change in self.study.changes or [PLAIN]]
        objects = torch.zeros_like(batch.images[:, 0]) if batch.masks is None else batch.object_masks()
        masks = [change.seen_as()(objects) for change in self.study.changes or [PLAIN]]
        tensors = {"images": to_bytes(torch.stack(changed)), "masks": torch.stack(masks).round().to(torch.uint8)}
        return Part({"paths": paths, "labels": labels}, tensors)

    def maps(self, label: str) -> Part:
        """Return one model's scores of every image under every change, with its maps."""
        subject, batch = self._subject(label), self._batch(self._places())
        keys = ("predicted", "probability", "energy_in_mask", "similarity")
        found: dict[str, list[list[Any]]] = {key: [] for key in keys}
        whole = self._explain(subject, batch.images)
        kept = []
        for change in self.study.changes or [PLAIN]:
            images, view = self._changed(change, batch), change.seen_as()
            maps = self._explain(subject, images)
            said = subject.say(images.to(self.device))
            back = view.inverse(maps) * view.seen((maps.shape[-2], maps.shape[-1]))
            found["predicted"].append([name for name, _ in said])
            found["probability"].append([probability for _, probability in said])
            found["energy_in_mask"].append(self._on_object(maps, batch, view))
            found["similarity"].append(cosine_similarity(back.flatten(1), whole.flatten(1)).tolist())
            kept.append(to_bytes(maps))
        return Part(found, {"maps": torch.stack(kept)})

    def _places(self) -> list[int]:
        """Return the positions of the images, chosen once."""
        if self.places is None:
            study, selection = self.study, self.selection
            if study.select_low_energy:
                number = study.num_images if study.images is None else 1
                groups = [selection.members(str(name)) for name in study.images or []] or [
                    [*range(len(selection.held_out))]
                ]
                self.places = [place for members in groups for place in self._low_energy(members, number)]
            elif study.images is None:
                self.places = [int(str(place)) for place in selection.draw(study.num_images, study.seed)]
            else:
                self.places = [c if isinstance(c, int) else selection.members(c)[0] for c in study.images]
        return self.places

    def _low_energy(self, members: list[int], number: int) -> list[int]:
        """Those of some images that the first model gets right with the smallest share of its map on the object."""
        subject = self._subject(self.study.models[0].label)
        scored: list[tuple[float, int]] = []
        for start in range(0, len(members), TOGETHER):
            some = members[start : start + TOGETHER]
            batch = self._batch(some)
            right = subject.probabilities(batch.images.to(self.device)).argmax(1).cpu() == batch.labels
            energy = torch.tensor(self._on_object(self._explain(subject, batch.images), batch, IDENTITY))
            scored += [(energy[k].item(), some[k]) for k in (right & ~energy.isnan()).nonzero().flatten().tolist()]
        if len(scored) < number:
            raise SightlineError(
                f"{self.study.called}: {number} images were asked for, and of {len(members)} there are {len(scored)} with a "
                f"mask and that {self.study.models[0].label} gets right; ask for fewer"
            )
        return [place for _, place in sorted(scored)[:number]]

    def _batch(self, places: list[int]) -> Batch:
        batches = create_loader(
            self.selection.held_out, size=self.side, batch_size=len(places), train=False, indices=places
        )
        return next(iter(batches))

    def _subject(self, label: str) -> Subject:
        """Return a model with the weights that its recipe trains, or has trained before."""
        if label not in self.subjects:
            recipe = self.recipes[label]
            run = train(recipe, output=self.folder / "runs" / file_name(label), resume=True, device=self.device)
            self.subjects[label] = run_subject(run, self.device)
        return self.subjects[label]

    def _explain(self, subject: Subject, images: Tensor) -> Tensor:
        """Return maps (B, H, W) of the class that the model predicts, on the CPU."""
        method = self.study.method
        explainer = create_explainer(method.name, **method.options)
        ask = partial(explainer, subject.model, layer=subject.layer_for(method.name), input_spec=subject.input_spec)
        return torch.cat([ask(some.to(self.device)).detach().float().cpu() for some in images.split(TOGETHER)])

    def _changed(self, change: Change, batch: Batch) -> Tensor:
        """Return the images under a change."""
        images = batch.images
        if change.noise is not None:
            if batch.masks is None or batch.has_mask is None or not batch.has_mask.all():
                raise SightlineError(f"{self.study.called}: the change {change.label!r} needs masks; an image has none")
            inside, outside = regions_of(batch.masks)
            region = inside if change.noise.region == "object" else outside
            images = noised(images, region, change.noise.level, seed=self.study.seed, indices=batch.indices)
        return change.seen_as()(images)

    def _on_object(self, maps: Tensor, batch: Batch, view: View) -> list[float]:
        """Return the share (B,) of each map's energy on the object; NaN where the object is not known."""
        if batch.masks is None:
            return [float("nan")] * len(maps)
        return energy_in_mask(maps, view(batch.object_masks()), batch.has_mask).tolist()


def mean_of(values: list[float]) -> str:
    """Return the mean of the defined values; a dash if there are none."""
    defined = [value for value in values if value == value]  # NaN is not itself
    return f"{mean(defined):.3f}" if defined else "—"


def _lines(changed: Tensor) -> Tensor:
    """Reshape (changes, images, ...) to (images x changes, ...), an image's changes one after the other."""
    return changed.transpose(0, 1).flatten(0, 1)
