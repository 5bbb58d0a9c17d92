"""Write a trained model as files that load without sightline: a plain state dict, a torch.export program, ONNX."""

from sightline.training.export.formats import FORMATS
from sightline.training.export.hub import push_to_hub
from sightline.training.export.writing import export_model, export_run

__all__ = ["FORMATS", "export_model", "export_run", "push_to_hub"]
