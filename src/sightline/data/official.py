"""Public data sets: how many images they have officially, and where they come from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Official:
    """What is known of a public data set.

    Attributes:
        train: its training images, of which "val" is drawn.
        test: its test images.
        source: where to get it.
    """

    train: int
    test: int
    source: str


OFFICIAL = {
    "cub": Official(5994, 5794, "https://www.vision.caltech.edu/datasets/cub_200_2011"),
    "pets": Official(3680, 3669, "https://www.robots.ox.ac.uk/~vgg/data/pets"),
    "voc": Official(931, 925, "http://host.robots.ox.ac.uk/pascal/VOC/voc2012"),
    "voc labels=multiple": Official(1464, 1449, "http://host.robots.ox.ac.uk/pascal/VOC/voc2012"),
    "coco": Official(117266, 4952, "https://cocodataset.org/#download"),
    "imagenet": Official(1281167, 50000, "https://www.image-net.org/download.php"),
    "cifar10": Official(50000, 10000, "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "cifar100": Official(50000, 10000, "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "stl10": Official(5000, 8000, "https://cs.stanford.edu/~acoates/stl10"),
}
