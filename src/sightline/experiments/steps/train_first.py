"""A first model that other runs begin with."""

from collections.abc import Callable

from pydantic import Field

from sightline.experiments.steps.base import STEPS, Step, StepContext
from sightline.studies.recipes import Keys
from sightline.studies.study import Part


@STEPS.register("train_first")
class TrainFirst(Step):
    """Train a model; variants that use it begin with its weights.

    All seeds of a variant share the model, so their spread is that of the second training alone.

    Attributes:
        changes: recipe keys that this run changes, in addition to those of the study.
    """

    label: str = "first"
    changes: Keys = Field(default_factory=dict)

    def prepare(self, context: StepContext) -> Callable[[], Part]:
        """Train the model under the step's label."""
        return lambda: context.train(self.label, self.changes | context.keys(self.uses))

    def keys(self, context: StepContext) -> Keys:
        """Return the keys of the weights by which the run is measured."""
        run = context.run(self.label)
        weights = run.last if context.recipe.save_best is None else run.best
        return {"model.weights": str(weights)}
