"""A model cut in two behind a layer, by torch.fx."""

from torch import fx, nn

from sightline.network.tracing import Interpreted, Tracer


class _Tracer(Tracer):
    """Traces the modules around the target layer only; every other one is called as a whole."""

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
    after = descendants(graph, {layer}) - {layer}
    sides = [
        n for n in graph.nodes
        if n not in after and n is not layer and n.op != "get_attr" and not after.isdisjoint(n.users)
    ]  # fmt: skip

    cut = tuple(Interpreted(model, part) for part in halves(graph, after, [layer, *sides], sides))
    for part in cut:
        part.graph.eliminate_dead_code()
    return cut[0], cut[1]


def descendants(graph: fx.Graph, nodes: set[fx.Node]) -> set[fx.Node]:
    """Return nodes with all that depends on them, the output included."""
    found = set(nodes)
    for node in graph.nodes:
        if node.op == "output" or not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def halves(
    graph: fx.Graph, behind: set[fx.Node], taken: list[fx.Node], returned: list[fx.Node]
) -> tuple[fx.Graph, fx.Graph]:
    """Return what comes before a cut, which returns some nodes, and the nodes behind it, which take some."""
    before, after = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node not in behind:
            copies[node] = before.node_copy(node, copies.__getitem__)
    before.output([copies[node] for node in returned])
    copies = {node: after.placeholder(node.name) for node in taken}
    for node in graph.nodes:
        if node in behind or node.op == "get_attr":
            copies[node] = after.node_copy(node, copies.__getitem__)
    return before, after
