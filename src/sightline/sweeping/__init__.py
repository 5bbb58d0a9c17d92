"""Searches over a recipe's keys, on Optuna: many runs of one recipe, judged by a validation figure."""

from sightline.errors import SightlineError

try:
    import optuna  # noqa: F401
except ImportError as error:
    raise SightlineError("a sweep needs optuna; install it by `pip install 'sightline-xai[sweep]'`") from error

from sightline.sweeping.document import Sweep, read_sweep, shipped_sweeps
from sightline.sweeping.outcome import Outcome
from sightline.sweeping.run import sweep

__all__ = ["Outcome", "Sweep", "read_sweep", "shipped_sweeps", "sweep"]
