"""The key `head` of a stage."""

from typing import Annotated, Literal

from pydantic import Field

from sightline._core.strict import Real, StrictModel


class Head(StrictModel):
    """What `fit: convex` fits behind the frozen trunk.

    Attributes:
        name: `linear`: the classifier's own last layer; `attention_pooling`: an attention that is the object's mask is fitted
            first, and the last layer then gets the mean of the last feature map weighted by the attention's square; or
            `prototype`: the class whose mean feature, pooled over the object, is the nearest (Snell et al. 2017).
        region: the object by its `masks` or by `boxes`; of `attention_pooling` and `prototype`.
        strength: of the attention's L2 penalty, see `sightline.training.heads.fit_attention`.
    """

    name: Literal["linear", "attention_pooling", "prototype"] = "linear"
    region: Literal["masks", "boxes"] = "masks"
    strength: Annotated[Real, Field(gt=0)] = 1e-2
