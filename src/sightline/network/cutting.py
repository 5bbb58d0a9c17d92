"""A model cut in two behind a layer, by torch.fx."""

import torch
from torch import nn

from sightline.network.tracing import Interpreted, Tracer


class _Tracer(Tracer):
    """Traces the modules around the target layer only; every other one is called as a whole, whatever it does inside."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not self._name.startswith(f"{module_qualified_name}.")


def cut_after(model: nn.Module, name: str) -> tuple[nn.Module, nn.Module]:
    """Cut a model after a layer into (trunk, tail).

    The trunk maps inputs to the values besides the layer's output that the tail still uses, such as a residual that
    bypasses the layer; the tail maps the layer's output and those values to the model's output.
    """
    graph = _Tracer(name).trace(model)
    (layer,) = [node for node in graph.nodes if node.op == "call_module" and node.target == name]
    after = {layer}
    for node in graph.nodes:
        if not after.isdisjoint(node.all_input_nodes):
            after.add(node)
    after.remove(layer)
    sides = [
        n for n in graph.nodes
        if n not in after and n is not layer and n.op != "get_attr" and not after.isdisjoint(n.users)
    ]  # fmt: skip

    trunk = torch.fx.Graph()
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in graph.nodes:
        if node not in after:
            copies[node] = trunk.node_copy(node, copies.__getitem__)
    trunk.output([copies[side] for side in sides])

    tail = torch.fx.Graph()
    copies = {node: tail.placeholder(node.name) for node in [layer, *sides]}
    for node in graph.nodes:
        if node in after or node.op == "get_attr":
            copies[node] = tail.node_copy(node, copies.__getitem__)

    cut = Interpreted(model, trunk), Interpreted(model, tail)
    for part in cut:
        part.graph.eliminate_dead_code()
    return cut
