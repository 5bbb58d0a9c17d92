"""Groups of images in which the model looks at the same thing."""

from dataclasses import dataclass

import torch
from scipy.cluster.vq import kmeans2
from scipy.stats import hypergeom
from torch import Tensor, nn

from sightline.diagnosis.checks import GREY
from sightline.diagnosis.maps import MapMeasurements
from sightline.diagnosis.probe import deep_features
from sightline.localization.annotation import Annotated
from sightline.network.input_spec import InputSpec

CLUSTERS = 6
EXAMPLES = 4
UNDER = 0.5  # what is under a map: where it is above this value


@dataclass(frozen=True)
class Cluster:
    """Images whose features under the maps are similar.

    Attributes:
        size: number of images.
        label: the class that is most frequent among them.
        purity: share of this class.
        p: probability of so many of it by chance, times the number of clusters; at most 1.
        on_object: mean share of the maps' energy on the objects.
        rows: the images nearest to the center of the cluster.
    """

    size: int
    label: int
    purity: float
    p: float
    on_object: float
    rows: list[int]


def under_maps(images: Tensor, maps: Tensor) -> Tensor:
    """Return images (B, C, H, W) with gray where their maps (B, H, W) in [0, 1] are low."""
    return torch.where((maps > UNDER)[:, None], images, GREY)


def find_clusters(
    model: nn.Module, shown: Annotated, maps: MapMeasurements, input_spec: InputSpec | None
) -> list[Cluster]:
    """Return the clusters by k-means, those whose maps overlap the objects least first."""
    features = deep_features(model, under_maps(shown.images, maps.saved.float() / 255), input_spec)
    if features.shape[1] == 0:
        return []
    scaled = features / features.std().clamp_min(1e-12)
    count = min(CLUSTERS, len(scaled) // 5, len(scaled.unique(dim=0)))
    centers, members = kmeans2(scaled.numpy(), count, minit="++", seed=0)
    energy, found = maps.values["energy_in_mask"], []
    for cluster in sorted(set(members.tolist())):
        rows = torch.from_numpy((members == cluster).nonzero()[0])
        counts = shown.labels[rows].bincount()
        label, most = int(counts.argmax()), int(counts.max())
        by_chance = float(hypergeom.sf(most - 1, len(shown), int((shown.labels == label).sum()), len(rows)))
        distance = (scaled[rows] - torch.from_numpy(centers[cluster])).square().sum(1)
        nearest = rows[distance.argsort(stable=True)][:EXAMPLES].tolist()
        p = min(1.0, len(centers) * by_chance)
        found.append(Cluster(len(rows), label, most / len(rows), p, float(energy[rows].nanmean()), nearest))
    return sorted(found, key=lambda each: each.on_object)
