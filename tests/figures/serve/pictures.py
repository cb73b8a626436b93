"""How close a picture is to its original."""

import math

from PIL import Image, ImageChops, ImageStat


def compare(original, other):
    """The peak signal-to-noise ratio in dB, over all three colours."""
    with Image.open(original) as first, Image.open(other) as second:
        difference = ImageChops.difference(first.convert("RGB"), second.convert("RGB"))
    squares = ImageStat.Stat(difference).sum2
    mean = sum(squares) / (3 * difference.width * difference.height)
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)
