"""What every command imports, once for all of the processes that `children` forks; and the data that they use."""

import gc
import importlib
import io
import pkgutil
import sys
from pathlib import Path

import torch
from PIL import Image

import sightline

sys.path[:0] = [str(Path(__file__).parents[1])]

OWN = [each.name for each in pkgutil.walk_packages(sightline.__path__, "sightline.")]
OTHERS = [  # what those import when a command first needs it
    "alembic.config", "contourpy", "lightning_fabric", "matplotlib.backends.backend_agg", "networkx", "onnx",
    "optuna.storages._rdb.models", "pandas", "pyarrow.dataset", "pyarrow.parquet", "rich.markdown", "rich.progress",
    "rich.table", "rich.traceback", "scipy.stats", "sklearn.cluster", "sklearn.datasets", "sqlalchemy.dialects.sqlite",
    "sqlalchemy.orm", "torch.export", "torch.onnx", "torch.utils.flop_counter", "torch.utils.tensorboard", "torchvision",
    "zarr",
]  # fmt: skip
for name in (*OWN, *OTHERS, "tiny"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sightline"):
            raise
    except Exception:
        pass
Image.init()
model = torch.export.export(torch.nn.Linear(1, 1), (torch.zeros(1, 1),))  # imports a hundred modules on its first call
torch.export.save(model, io.BytesIO())
LOADED = True

from sightline.sweeping import storage  # noqa: E402 - imported above where Optuna is installed

storage.HEARTBEAT, storage.GRACE = 1, 3  # seconds, so that a dead process is known soon
gc.freeze()  # no collection in a process looks through all of this, and copies the memory by doing so
