"""Images that are unlike all that have a label."""

import torch

from sightline.acquisition.base import Pool, QueryStrategy, Selection
from sightline.acquisition.registry import QUERY_STRATEGIES

ROWS = 1024  # known images whose distances are in memory at a time


@QUERY_STRATEGIES.register("coreset")
class CoreSet(QueryStrategy):
    """Images farthest from any known one, one after the other (CORE: Sener and Savarese 2018, greedy k-center).

    Distances are Euclidean, between the features that the model classifies by. The score of an image is its distance from the
    nearest image that was known or chosen before it.
    """

    def select(self, pool: Pool, count: int) -> Selection:
        """Greedy k-center: an image that is chosen counts as known for the next."""
        features = pool.features
        nearest = torch.full((len(features),), torch.inf)
        for known in pool.known_features.split(ROWS):
            nearest = nearest.minimum(torch.cdist(features, known).amin(1))
        places: list[int] = []
        scores: list[float | None] = []
        for _ in range(count):
            place = int(nearest.argmax())
            places.append(place)
            scores.append(float(nearest[place]))
            nearest = nearest.minimum((features - features[place]).norm(dim=1))
            nearest[places] = -1  # also where every distance is 0, no image comes twice
        return Selection(places, scores)
