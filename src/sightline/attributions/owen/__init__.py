"""Owen values of pixels (Partition SHAP), for many images at once.

Owen values are Shapley values for parts that stick together: an image is halved again and again, and a half joins or leaves
only before or after the other one. An *item* of the work is a part with a context, which is what is shown of the rest of the
image; its worth is f(context and part) - f(context). *Expanding* an item evaluates the context with either half of the part,
and puts four items of half the weight in its place: each half, with the other half hidden and with it shown.
"""

from sightline.attributions.owen.values import OwenValues, owen_values

__all__ = ["OwenValues", "owen_values"]
