"""Which share of exchanged backgrounds and which strength the strong recipes take, judged on training images alone.

    export SIGHTLINE_DATA=...
    OMP_NUM_THREADS=2 python benchmarks/strong_choice.py --passes 8 --repeats 8
    OMP_NUM_THREADS=2 python benchmarks/strong_choice.py --passes 8 --repeats 8 --classes   # one attention for each class

In each repetition, 30 of the 100 training images of each breed train the head and the other 210 judge it: on the scenes
of their own breed, and on those of the other breeds. The test splits are never read.
"""

import argparse
from collections.abc import Callable, Iterator
from itertools import product
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.allocator import keep_freed_memory
from sightline._core.seeding import derive_seed
from sightline.guides import RandomBackground
from sightline.guides.attention_gate import attention_loss
from sightline.heads import fit_attention, fit_linear
from sightline.heads.minimum import minimize
from sightline.network.input_spec import to_inputs
from sightline.regions.batch_regions import object_region
from sightline.runs.recipe import read_recipe
from sightline.training.build import Parts, build

FINE, LAST = "blocks.4", "blocks.6"
PER_CLASS = 30
RECIPE, KEYS = "pets-strong-all", ["seed=0", "stages.0.head=linear"]
SHARES, STRENGTHS = (0.0, 0.3, 0.5, 0.7), (0.03, 0.1, 0.3, 1.0, 3.0)


class Network:
    """The frozen network, opened where the attention reads and before its last 1 x 1 convolution, whose output is large."""

    def __init__(self, parts: Parts) -> None:
        self.model, self.spec = parts.model.eval().to(memory_format=torch.channels_last), parts.spec

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []
        handles = [
            self.model.get_submodule(name).register_forward_hook(
                lambda module, args, output: kept.append(output.half())
            )
            for name in (FINE, LAST)
        ]
        self.model(to_inputs(images, self.spec).to(memory_format=torch.channels_last))
        for handle in handles:
            handle.remove()
        return kept[0], kept[1]

    def finish(self, maps: Tensor) -> Tensor:
        """Return the last feature maps (N, 1280, 7, 7)."""
        head = nn.Sequential(*map(self.model.get_submodule, ("conv_head", "bn2")))
        return torch.cat([head(chunk.float()) for chunk in maps.split(128)])


def collect(parts: Parts, network: Network, passes: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return rows of the training passes, rows of the images that judge, without augmentation, and all labels."""
    exchange, state = RandomBackground(), SimpleNamespace(training=True, epoch=0)
    train: list[tuple[Tensor, ...]] = []
    judge: list[tuple[Tensor, ...]] = []
    loader = parts.train_loader(0, 1)
    for number in range(passes):
        torch.manual_seed(derive_seed(0, number, "features") % 2**32)
        loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
        state.epoch = number
        for batch in loader:
            fine, coarse = (object_region(batch, "masks").at((side, side)) for side in (14, 7))
            own, other = network(batch.images), network(exchange.transform(batch, state).images)
            train.append((batch.indices, *own, *other, fine.inside, fine.outside, coarse.inside, coarse.outside))
        print(f"pass {number + 1} of {passes}", flush=True)
    labels = torch.cat([batch.labels for batch in parts.plain_loader("train", 0, 1)])
    for shift in range(3):  # the images on their own breed's scenes, and on those of each other breed
        shifted = build(
            read_recipe(RECIPE, [*KEYS, f"data.scenes={rotated(parts.recipe.data.options['scenes'], shift)}"])
        )
        for batch in shifted.plain_loader("train", 0, 1):
            judge.append((batch.indices, torch.full_like(batch.indices, shift), *network(batch.images)))
    return [torch.cat(part) for part in zip(*train)], [torch.cat(part) for part in zip(*judge)], labels


def rotated(scenes: dict[str, list[int]], shift: int) -> dict[str, list[int]]:
    """Return the scenes of each breed with those of another in their place."""
    breeds = list(scenes)
    return {breed: scenes[breeds[(n + shift) % len(breeds)]] for n, breed in enumerate(breeds)}


def pooled(last: Tensor, attention: Tensor | None, power: int = 2) -> Tensor:
    """Return the means (N, C) of maps, weighted by a power of the attention, if any."""
    if attention is None:
        return last.mean((2, 3))
    weights = F.adaptive_avg_pool2d(attention.pow(power), (last.shape[2], last.shape[3]))
    return torch.einsum("nchw,nhw->nc", last, weights / weights.sum((1, 2), keepdim=True))


def repeat(
    network: Network, train: list[Tensor], judge: list[Tensor], labels: Tensor, seed: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the accuracies on own and on other scenes of every setting for one choice of training images."""
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(3):
        images = (labels == label).nonzero()[:, 0]
        chosen[images[torch.randperm(len(images), generator=draw)[:PER_CLASS]]] = True
    train = [part[chosen[train[0]]] for part in train]
    judge = [part[~chosen[judge[0]]] for part in judge]
    indices, own_fine, own_last, other_fine, other_last, inside, outside, coarse_inside, coarse_outside = train
    own_last, other_last = network.finish(own_last), network.finish(other_last)
    who, shift, judged_fine, judged_last = judge
    judged_fine, judged_last = judged_fine.float(), network.finish(judged_last)
    exchanged = torch.rand(len(indices), generator=draw)
    some = slice(None, None, -(-len(indices) // 512))
    found = {}
    for share in options.shares:
        take = (exchanged < share)[:, None, None, None]
        fine, last = torch.where(take, other_fine, own_fine).float(), torch.where(take, other_last, own_last)
        on_fine = attentions(fine, judged_fine, inside, outside, some)
        heads = {
            "mean": (None, None, 0),
            f"attention on {FINE}": (*on_fine, 2),
            f"attention on {FINE}, first power": (*on_fine, 1),
            "attention on the last map": (*attentions(last, judged_last, coarse_inside, coarse_outside, some), 2),
        }
        for head, (attention, judged, power) in heads.items():
            rows, judged_rows = pooled(last, attention, power), pooled(judged_last, judged, power)
            for strength in STRENGTHS:
                weight, bias = fit_linear(rows, labels[indices], strength=strength, classes=3)
                right = ((judged_rows.double() @ weight.T + bias).argmax(1) == labels[who]).double()
                found[f"{head}, share {share}, strength {strength}"] = [
                    right[shift == 0].mean().item(), right[shift > 0].mean().item()
                ]  # fmt: skip
        if not options.classes:
            continue
        places = {
            FINE: (fine, judged_fine, inside, outside),
            "the last map": (last, judged_last, coarse_inside, coarse_outside),
        }
        for (place, of), others in product(places.items(), (False, True)):
            maps = class_attentions(*of, labels[indices], others)
            rows, judged_rows = (
                torch.stack([pooled(each, a) for a in attention.unbind(1)], 1)
                for each, attention in zip((last, judged_last), maps)
            )
            for strength in STRENGTHS:
                logits = fit_class_rows(rows, labels[indices], strength)(judged_rows)
                right = (logits.argmax(1) == labels[who]).double()
                name = f"attention on {place} of each class{', nothing in images of others' * others}"
                found[f"{name}, share {share}, strength {strength}"] = [
                    right[shift == 0].mean().item(), right[shift > 0].mean().item()
                ]  # fmt: skip
    return found


def attentions(maps: Tensor, judged: Tensor, inside: Tensor, outside: Tensor, some: slice) -> tuple[Tensor, Tensor]:
    """Return the attention that is fitted on some of the training maps, on these maps and on those that judge."""
    fitted = fit_attention(maps[some], inside[some], outside[some], strength=0.02)
    weight, bias = (each.float() for each in fitted)
    one, other = ((torch.einsum("nchw,c->nhw", each, weight[0]) + bias).sigmoid() for each in (maps, judged))
    return one, other


def class_attentions(
    maps: Tensor, judged: Tensor, inside: Tensor, outside: Tensor, labels: Tensor, others: bool
) -> tuple[Tensor, Tensor]:
    """Return an attention (N, K, h, w) for each class, on the training maps and on those that judge.

    The attention of a class is fitted to the objects of its images. With `others`, it is also fitted to be 0 everywhere in the
    images of the other classes.
    """
    some = torch.arange(0, len(maps), -(-len(maps) // 512))
    mean, deviation = maps[some].mean((0, 2, 3)), maps[some].std((0, 2, 3))
    found = []
    for label in range(3):
        rows = some if others else some[labels[some] == label]
        own = (labels[rows] == label).double()[:, None, None]
        objects, rest = inside[rows].double() * own, outside[rows].double() + inside[rows].double() * (1 - own)
        scaled = ((maps[rows] - mean[:, None, None]) / deviation[:, None, None]).double().flatten(2)

        def linear(parameters: Tensor, scaled: Tensor = scaled) -> Iterator[Tensor]:
            yield torch.einsum("ncp,c->np", scaled, parameters[:-1]) + parameters[-1]
            yield parameters[:-1]

        def loss(logits: Tensor, objects: Tensor = objects, rest: Tensor = rest) -> Tensor:
            return attention_loss(logits.reshape_as(objects), objects, rest).mean()

        start = torch.zeros(maps.shape[1] + 1, dtype=torch.float64)
        fitted = minimize(linear, (loss, lambda weight: 0.01 * weight.square().sum()), start, 1e-5, 1e-7).float()
        weight = fitted[:-1] / deviation
        found.append((weight, fitted[-1] - weight @ mean))
    weights, biases = (torch.stack(part) for part in zip(*found))
    one, other = (
        (torch.einsum("nchw,kc->nkhw", each, weights) + biases[:, None, None]).sigmoid() for each in (maps, judged)
    )
    return one, other


def fit_class_rows(rows: Tensor, labels: Tensor, strength: float) -> Callable[[Tensor], Tensor]:
    """Return the logits (N, K) of a softmax regression on each class's own features (N, K, C), fitted as `fit_linear` fits."""
    mean, deviation = rows.double().mean(0), rows.double().std(0, correction=0)
    scaled = (rows.double() - mean) / deviation

    def linear(parameters: Tensor) -> Iterator[Tensor]:
        yield (scaled * parameters[:, :-1]).sum(2) + parameters[:, -1]
        yield parameters[:, :-1]

    start = scaled.new_zeros(scaled.shape[1], scaled.shape[2] + 1)
    losses = (
        lambda logits: F.cross_entropy(logits, labels),
        lambda weight: strength / 2 * weight.square().sum(),
    )
    found = minimize(linear, losses, start, 1e-6)
    return lambda other: ((other.double() - mean) / deviation * found[:, :-1]).sum(2) + found[:, -1]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--passes", type=int, default=8, help="over the training images, each with other augmentation")
    parser.add_argument("--repeats", type=int, default=12, help="choices of the 90 training images")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of exchanged passes")
    parser.add_argument("--classes", action="store_true", help="try an attention for each class too")
    options = parser.parse_args()
    keep_freed_memory()
    parts = build(read_recipe(RECIPE, KEYS))
    network = Network(parts)
    train, judge, labels = collect(parts, network, options.passes)
    found = [repeat(network, train, judge, labels, seed, options) for seed in range(options.repeats)]
    print("| setting | own scenes | other scenes | mean |\n| --- | --- | --- | --- |")
    for setting in found[0]:
        own, other = torch.tensor([each[setting] for each in found]).mean(0).tolist()
        print(f"| {setting} | {own:.4f} | {other:.4f} | {(own + other) / 2:.4f} |")


if __name__ == "__main__":
    main()
