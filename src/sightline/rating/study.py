"""A study: opened where it is, or made of one or two runs."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sightline._core.checks import check_count
from sightline._core.output_lock import holding_folder
from sightline.errors import SightlineError
from sightline.rating.batch import Contender, draw_pairs, examples, main_test_of
from sightline.rating.store import Store

IMAGES = 100  # as many as the paper's raters saw
FILE = "study.sqlite"


def open_study(
    folder: str | Path,
    contenders: Sequence[Contender] = (),
    *,
    images: int | None = None,
    split: str | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> Store:
    """Open the study in a folder, or make it.

    Args:
        folder: the folder of `study.sqlite`.
        contenders: the two whose maps are compared; empty = those of the existing study.
        images: how many of the split's images, drawn at random; None = 100, or as many as the study has.
        split: None = the main test split, or the study's.
        seed: of the images, and of everyone's order and sides; None = 0, or the study's.
        progress: show a bar where maps are made.

    Returns:
        The open study.

    Raises:
        OutputInUseError: another process makes the study.
        SightlineError: there is none and no contenders were given, or the existing study compares something else.
    """
    with holding_folder(Path(folder)) if contenders else nullcontext():
        return _open(Path(folder), contenders, images, split, seed, progress)


def _open(
    folder: Path,
    contenders: Sequence[Contender],
    images: int | None,
    split: str | None,
    seed: int | None,
    progress: bool,
) -> Store:
    path = folder / FILE
    asked: dict[str, Any] = {"images": images, "split": split, "seed": seed}
    asked["contenders"] = [contender.facts for contender in contenders] or None
    if path.exists():
        store = Store(path)
        for key, value in asked.items():
            if value is not None and value != store.facts[key]:
                store.close()
                raise SightlineError(
                    f"{folder} holds a study whose {key} are {store.facts[key]}, not {value}; choose another folder"
                )
        return store
    if len(contenders) != 2:
        raise SightlineError(
            f"there is no study in {folder}, and {len(contenders)} of the two contenders were given; name two runs, or one "
            "run and two explainers"
        )
    if contenders[0].facts == contenders[1].facts:
        raise SightlineError(
            f"both contenders are {contenders[0].explainer} of {contenders[0].run}; expected two that differ"
        )
    split = split or main_test_of(contenders[0].run)
    check_count(0, seed=seed or 0)
    seed, images = seed or 0, IMAGES if images is None else images
    pairs, origin = draw_pairs(contenders[0], contenders[1], split, images, seed, progress=progress)
    facts = {**asked, "images": images, "split": split, "seed": seed, **origin}
    return Store.create(path, facts, pairs, examples())
