"""Errors of autograd where a score has no gradient, in words that say what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sightline.errors import SightlineError

_MISSING = re.compile(
    r"not have been used in the graph|does not require grad and does not have a grad_fn|derivative for"
)


@contextmanager
def naming_missing_gradients() -> Iterator[None]:
    """Raise SightlineError where autograd finds no way from the explained score to what it is differentiated by."""
    try:
        yield
    except RuntimeError as error:
        if not _MISSING.search(str(error)):
            raise
        raise SightlineError(
            "the explained score has no gradient with respect to the image or a layer: it does not depend on it, or a part of "
            "the model has no gradient (such as an int8 layer); explain another score, or use an explainer without gradients, "
            "such as 'occlusion', 'rise' or 'scorecam'"
        ) from error
