"""The formats of an export and the file of each."""

from typing import Literal, get_args

Format = Literal["state-dict", "torch-export", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILES: dict[Format, str] = {"state-dict": "model.safetensors", "torch-export": "model.pt2", "onnx": "model.onnx"}
