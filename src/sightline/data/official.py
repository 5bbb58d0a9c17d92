"""Public datasets: where they come from, and how many images they have officially."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Official:
    """What is known of a public dataset.

    Attributes:
        source: where to get it.
        train: number of its training images, of which "val" is drawn; None = unknown, or not part of it.
        test: number of its test images; None = unknown.
    """

    source: str
    train: int | None = None
    test: int | None = None


VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012"
CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"

OFFICIAL = {
    "cub": Official("https://www.vision.caltech.edu/datasets/cub_200_2011", 5994, 5794),
    "pets": Official("https://www.robots.ox.ac.uk/~vgg/data/pets", 3680, 3669),
    "voc": Official(VOC, 931, 925),
    "voc labels=multiple": Official(VOC, 1464, 1449),
    "pascal_part": Official(
        "http://roozbehm.info/pascal-parts/pascal-parts.html (annotations of the images of PASCAL VOC 2010)"
    ),
    "coco": Official("https://cocodataset.org/#download", 117266, 4952),
    "imagenet": Official("https://www.image-net.org/download.php", 1281167, 50000),
    "imagenet9": Official("https://github.com/MadryLab/backgrounds_challenge"),
    "rival10": Official("https://github.com/mmoayeri/RIVAL10"),
    "cifar10": Official(CIFAR, 50000, 10000),
    "cifar100": Official(CIFAR, 50000, 10000),
    "stl10": Official("https://cs.stanford.edu/~acoates/stl10", 5000, 8000),
}
