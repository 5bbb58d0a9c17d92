"""What every command imports, once for all of the processes that `children` forks; and the data that they use."""

import importlib
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "training")]

for name in (
    "lightning_fabric", "torch.utils.tensorboard", "torchvision", "zarr", "optuna", "onnx", "torch.onnx", "torch.export",
    "sightline.cli.app", "sightline.acquisition", "sightline.data.map_store", "sightline.diagnosis",
    "sightline.experiments", "sightline.explainers.maps", "sightline.fixing.marking.app",
    "sightline.localization.writing", "sightline.models",
    "sightline.rating.server", "sightline.reporting.comparison", "sightline.reporting.leaderboard", "sightline.studies",
    "sightline.sweeping", "sightline.training.export", "sightline.training.loop", "torch.utils.flop_counter", "tiny",
):  # fmt: skip
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sightline"):
            raise
    except Exception:
        pass
LOADED = True

from sightline.sweeping import storage  # noqa: E402 - imported above where Optuna is installed

storage.HEARTBEAT, storage.GRACE = 1, 2  # seconds, so that a dead process is known soon
