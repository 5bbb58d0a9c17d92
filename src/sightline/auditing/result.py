"""What an audit says about an image."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AuditResult:
    """What an audit says about one image.

    Attributes:
        index: its place in the data set.
        path: where it comes from.
        label: its class.
        predicted: the likeliest class.
        probability: of the predicted class.
        runner_up: the next likely class.
        runner_up_probability: its probability.
        outside_fraction: share of what the model uses that is outside the evidence, in [0, 1]; NaN where LOTS has no map.
        chance: what a uniform map would have outside.
    """

    index: int
    path: str
    label: str
    predicted: str
    probability: float
    runner_up: str
    runner_up_probability: float
    outside_fraction: float
    chance: float
