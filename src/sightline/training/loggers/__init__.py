"""Experiment trackers in addition to the run folder: Weights & Biases, MLflow, and any logger with Fabric's interface."""

from sightline.training.loggers.connection import Logger, Loggers, check_installed, log_values
from sightline.training.loggers.mlflow import MLflowLogger
from sightline.training.loggers.wandb import WandbLogger

__all__ = ["Logger", "Loggers", "MLflowLogger", "WandbLogger", "check_installed", "log_values"]
