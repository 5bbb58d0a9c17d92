"""Exceptions raised by sightline."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class SightlineError(ValueError):
    """A mistake in what was given. The message names the argument, what came and what is accepted.

    torch raises the error of a process that loads images again, with the whole traceback as the message; the message is kept.

    Examples:
        >>> try:
        ...     sl.create_explainer("gradcan")
        ... except sl.SightlineError as error:
        ...     print(error)
        unknown explainer 'gradcan'; did you mean ...
    """

    def __init__(self, message: str = "") -> None:
        if message.startswith("Caught ") and " in DataLoader worker process " in message.partition("\n")[0]:
            message = message.strip().rpartition(f".{type(self).__name__}: ")[2]
        super().__init__(message)


class MissingFileError(SightlineError):
    """Nothing is where a path points."""


class MissingDependencyError(SightlineError):
    """An optional package is not installed; the message has the command that installs it.

    Examples:
        >>> raise sl.MissingDependencyError("captum is not installed; pip install 'sightline-xai[captum]'")
        Traceback (most recent call last):
        sightline.errors.MissingDependencyError: captum is not installed; pip install 'sightline-xai[captum]'
    """


class NonFiniteLossError(SightlineError):
    """The loss became NaN or infinite.

    Attributes:
        indices: dataset indices of the images in the batches that failed, over all processes.

    Examples:
        >>> sl.NonFiniteLossError("the loss is nan", indices=[3, 7]).indices
        [3, 7]
    """

    def __init__(self, message: str, indices: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.indices = list(indices)


class RunFailedError(SightlineError):
    """A run that had begun could not continue; its last good checkpoint is kept."""


class UnwritableError(RunFailedError, OSError):
    """The system cannot write a file, such as on a full disk; the message names the file."""


class OutputInUseError(SightlineError):
    """Another process writes to the output; the message names the process."""


class NotDefinedError(SightlineError):
    """A method is not defined for this model; the message names the module that it cannot handle.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> try:
        ...     sl.explain(model, torch.rand(1, 3, 16, 16), method="guided_backprop")
        ... except sl.NotDefinedError as error:
        ...     print(type(error).__name__)
        NotDefinedError
    """


def unknown_name(noun: str, name: str, known: Iterable[str]) -> SightlineError:
    """Return an error for an unknown name, with the nearest names that exist."""
    known = sorted(known)
    nearest = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(repr(n) for n in nearest)}?" if nearest else f"known: {', '.join(known) or 'none'}"
    )
    return SightlineError(f"unknown {noun} {name!r}; {hint}")
