"""MLflow."""

import time
from collections.abc import Mapping
from typing import Any

from sightline._core.strict import flat
from sightline.runs.run import Run


class MLflowLogger:
    """A run of MLflow.

    Args:
        run: whose name the run there has.
        version: id of the run to continue with; None = a new one.
        experiment_name: where it is listed.
        tracking_uri: a server, or `sqlite:///FILE`; None = MLflow's own choice, such as the environment's MLFLOW_TRACKING_URI.
        tags: of a new run.
    """

    def __init__(
        self,
        *,
        run: Run,
        version: str | None,
        experiment_name: str = "sightline",
        tracking_uri: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri)
        if version is not None:
            self._client.update_run(version, status="RUNNING")
            self._id = version
            return
        found = self._client.get_experiment_by_name(experiment_name)
        experiment = self._client.create_experiment(experiment_name) if found is None else found.experiment_id
        self._id = self._client.create_run(experiment, run_name=run.path.name, tags=tags).info.run_id

    @property
    def version(self) -> str:
        """The run's id."""
        return self._id

    def log_hyperparams(self, params: Any) -> None:
        """Keep the recipe, a parameter for each of its keys."""
        from mlflow.entities import Param

        told = [Param(key, str(value)) for key, value in flat(dict(params))]
        for start in range(0, len(told), 100):  # as many as the server takes in one request
            self._client.log_batch(self._id, params=told[start : start + 100])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send a row, whose epoch is `step`."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._id, metrics=[Metric(key, value, now, step or 0) for key, value in metrics.items()])

    def finalize(self, status: str) -> None:
        """End the run."""
        self._client.set_terminated(self._id, "FINISHED" if status == "success" else "FAILED")
