"""A picture like a photo, and how close a picture is to its original."""

import math
import random

from PIL import Image, ImageChops, ImageStat


def photo(side=1024):
    """Soft shapes of several sizes and a sensor's grain, the same each time. As of a real one of 1024x1024, the PNG has
    2.5 MB and its JPEG of quality 90 has 550 KB."""
    dice = random.Random(7)

    def scaled(layer, strength=1.0):
        layer = layer.point([round(128 + (value - 128) * strength) for value in range(256)])
        return layer.resize((side, side), Image.Resampling.BICUBIC)

    def noise(size):
        return Image.frombytes("L", (size, size), dice.randbytes(size * size))

    def grain(size, strength):
        # The mean of two is nearer to a sensor's noise than one.
        return scaled(ImageChops.add(noise(size), noise(size), 2), strength)

    def sum_of(first, second):
        return ImageChops.add(first, second, 1, -128)

    large, middle, small = (scaled(noise(size)) for size in (4, 9, 30))
    shapes = Image.blend(Image.blend(large, middle, 0.4), small, 0.25)
    light = sum_of(shapes, grain(side, 0.25))
    # Colours are coarser than light, as cameras and JPEG have them.
    bands = [sum_of(sum_of(light, scaled(noise(5), 0.3)), grain(side // 2, 0.3)) for _ in range(3)]
    return Image.merge("RGB", bands)


def compare(original, other):
    """The peak signal-to-noise ratio in dB, over all three colours."""
    with Image.open(original) as first, Image.open(other) as second:
        difference = ImageChops.difference(first.convert("RGB"), second.convert("RGB"))
    squares = ImageStat.Stat(difference).sum2
    mean = sum(squares) / (3 * difference.width * difference.height)
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)
