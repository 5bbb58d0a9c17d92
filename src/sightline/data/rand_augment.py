"""RandAugment for images with what belongs to them."""

from typing import Any

from torchvision.transforms import v2

MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


class RandAugment(v2.RandAugment):
    """torchvision's `RandAugment`, which moves masks, boxes and saliency maps as it moves the image.

    Where an image is moved away from, it is black, a mask is 0 (background) and a map is 0. What changes colors alone leaves
    the others unchanged.

    References:
        Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2020.
    """

    def forward(self, *inputs: Any) -> Any:
        """Change an image, and move what comes with it; None stays None."""
        image, *others = inputs
        self._done: list[tuple[str, float, dict[str, Any]]] = []
        image = super().forward(image)
        move = super()._apply_image_or_video_transform
        for name, magnitude, options in self._done:
            if name in MOVES:
                others = [None if each is None else move(each, name, magnitude, **options) for each in others]
        return (image, *others) if others else image

    def _apply_image_or_video_transform(self, image: Any, transform_id: str, magnitude: float, **options: Any) -> Any:
        """Do one operation, and remember it."""
        self._done.append((transform_id, magnitude, options))
        return super()._apply_image_or_video_transform(image, transform_id, magnitude, **options)
