"""What every method of the comparison gets: the sets, the budget, the trials of its own options, and the seeds.

COMPARISON=tiny in the environment makes everything tiny, in a folder of its own: it shows in minutes that every method runs to
the end. Its values mean nothing.
"""

import json
import os
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

PLACE = Path("build/comparison")  # of the environments of the peers and of their code
TINY = os.environ.get("COMPARISON") == "tiny"
ROOT = PLACE / "tiny" if TINY else PLACE
SIZE, LARGE = (64, 96) if TINY else (112, 224)  # px: where the whole network is trained, and where it is frozen
BATCH, EPOCHS = (3, 1) if TINY else (15, 5)
SEEDS = (0, 1) if TINY else (0, 1, 2)
# With a frozen network: draws of augmentation, and passes over all of them.
DRAWS, HEAD_EPOCHS, HEAD_BATCH = (1, 1, 3) if TINY else (4, 20, 30)
COUNT = 2 if TINY else 40  # images of each breed to train on, and as many for validation
TESTED = 12 if TINY else None  # test images in each context; None = all
SETS = ("stamped",) if TINY else ("recomposed", "stamped")  # every method runs on the stamped pets
AUGMENT: dict[str, dict[str, Any]] = {
    "recomposed": {"crop": 0.25, "flip": True, "jitter": 0.3},
    "stamped": {"crop": 0.8, "flip": False, "jitter": 0.3},  # crops keep most of the stamps
}
CLASSES = ("Abyssinian", "american bulldog", "Bengal")
MODEL = "timm/tf_efficientnet_lite0"
WEIGHTS = "weights/efficientnet_lite0_imagenet1k.safetensors"


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    Args:
        label: of the row.
        module: with the function `train`.
        environment: that runs it; "base" = the one of sightline.
        uses: which annotation beside labels it reads in training.
        trials: options that are tried with seed 0; the best on validation is taken for every seed.
        frozen: the ImageNet network stays as it is, at `LARGE`; else the whole network is trained, at `SIZE`.
        fixed: options of every trial.
        sets: which sets it runs on.
    """

    label: str
    module: str
    environment: str
    uses: str
    trials: tuple[dict[str, Any], ...] = ({},)
    frozen: bool = False
    fixed: dict[str, Any] = field(default_factory=dict)
    sets: tuple[str, ...] = SETS

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return LARGE if self.frozen else SIZE


def _each(**options: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    return tuple(dict(zip(options, values)) for values in product(*options.values()))


def _frozen(
    label: str, module: str, environment: str, uses: str, trials: tuple[dict[str, Any], ...], *sets: str, **fixed: Any
) -> Method:
    return Method(label, module, environment, uses, trials, True, fixed, sets or SETS)


RATES, STRENGTHS = _each(rate=(1e-3, 3e-3, 1e-2, 3e-2)), _each(strength=(0.01, 0.1, 1.0, 10.0))
JTT, GAMMAS = _each(upweight=(5, 20), first_epochs=(1, 3)), _each(gamma=(1.0, 4.0, 10.0, 20.0))
DRO, GUIDED = _each(rate=(3e-3, 1e-2), decay=(0.0, 1e-2)), _each(loss=("Energy", "L1"))
WEIGHED = _each(loss=("Energy", "L1"), weight=(1.0, 10.0))
CLARC = _each(projection=("pcav", "svm"), strength=(0.5, 1.0))
HELD = "validation with groups"

METHODS: dict[str, Method] = {
    "cross-entropy": Method("cross-entropy", "ours", "base", "-", _each(rate=(3e-4, 1e-3)), fixed={"kind": "cross_entropy"}),
    # A search of the small form took as many processor seconds as twelve trainings.
    "bnnr-small": Method("BNNR's search, small", "bnnr_search", "bnnr", "-",
                         fixed={"preset": "light", "saliency": "gradcam"}),
    "bnnr": Method("BNNR's search", "bnnr_search", "bnnr", "-", _each(preset=("light", "standard"))),
    "jtt-spuco": Method("JTT, SpuCo", "spuco_forms", "spuco", "-", _each(upweight=(5, 20)), fixed={"kind": "jtt"}),
    "guidance": Method("Model-Guidance", "guidance", "guidance", "boxes", GUIDED, fixed={"weight": 10.0}),
    "guides": Method("Energy and L1 loss, sightline", "ours", "base", "masks", GUIDED,
                     fixed={"kind": "guided", "weight": 10.0}),
    "so-loss": Method("SO-Loss, sightline", "ours", "base", "masks", _each(beta=(0.0, 0.1)), fixed={"kind": "so_loss"}),
    "exchanged": Method("exchanged backgrounds, sightline", "ours", "base", "masks", _each(probability=(0.5, 1.0)),
                        fixed={"kind": "exchanged"}),
    "head": _frozen("cross-entropy, Adam", "heads", "base", "-", RATES, kind="cross_entropy"),
    "head-jtt-spuco": _frozen("JTT, SpuCo", "spuco_forms", "spuco", "-", JTT, kind="jtt"),
    "head-jtt": _frozen("JTT, sightline", "heads", "base", "-", JTT, kind="jtt"),
    "head-afr-authors": _frozen("AFR, its authors", "afr_authors", "afr", "-", GAMMAS),
    "head-afr": _frozen("AFR, sightline", "heads", "base", "-", GAMMAS, kind="afr"),
    "head-dro-spuco": _frozen("Group DRO, SpuCo", "spuco_forms", "spuco", "groups", DRO, "stamped", kind="dro"),
    "head-dro": _frozen("Group DRO, sightline", "heads", "base", "groups", DRO, "stamped", kind="dro"),
    "head-groups": _frozen("last layer by groups, sightline", "heads", "base", "groups", STRENGTHS, "stamped", kind="groups"),
    "head-clarc-peal": _frozen("P-ClArC, PEAL", "clarc", "peal", "groups", CLARC, "stamped"),
    "head-dfr-spuco": _frozen("DFR, SpuCo", "spuco_forms", "spuco", HELD, ({},), kind="dfr"),
    "head-dfr": _frozen("last layer on validation, sightline", "heads", "base", HELD, ({},), kind="dfr"),
    "head-guidance": _frozen("Model-Guidance", "guidance", "guidance", "boxes", WEIGHED),
    "head-guides": _frozen("Energy and L1 loss, sightline", "heads", "base", "boxes", WEIGHED, kind="guided"),
    "probe": _frozen("probe, sightline", "heads", "base", "-", STRENGTHS, kind="probe"),
    "probe-exchanged": _frozen("probe, exchanged backgrounds, sightline", "ours", "base", "masks", STRENGTHS,
                               kind="frozen", head="linear"),
    "strong": _frozen("attention pooling, exchanged, sightline", "ours", "base", "masks", STRENGTHS,
                      kind="frozen", head="attention_pooling"),
}  # fmt: skip


def augment_of(name: str, size: int) -> dict[str, Any]:
    """Return the augmentation of a set; with a frozen network, crops keep most of the image on both sets."""
    return AUGMENT[name] | ({"crop": 0.8} if size == LARGE else {})


def folder_of(name: str, method: str) -> Path:
    """Return where the runs of a method on a set are."""
    return ROOT / "runs" / name / method


def chosen_trial(name: str, method: str) -> dict[str, Any]:
    """Return the options that validation chose for a method on a set."""
    text = (folder_of(name, method) / "chosen.json").read_text()
    return dict(json.loads(text)["options"])


def run_folder(name: str, method: str, seed: int, trial: int) -> Path:
    """Return the folder of one run."""
    return folder_of(name, method) / f"seed{seed}-trial{trial}"
