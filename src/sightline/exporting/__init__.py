"""Write a trained model as files that load without sightline: a plain state dict, a torch.export program, ONNX."""

from sightline.exporting.hub import push_to_hub
from sightline.exporting.programs import FORMATS
from sightline.exporting.writing import export_model, export_run

__all__ = ["FORMATS", "export_model", "export_run", "push_to_hub"]
