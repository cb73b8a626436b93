"""Pillow's part of the comparison by content.

Usage: pillow_contents.py make DIRECTORY REPETITIONS: from each PPM but the photo's a PNG and a JPEG; prints name and CPU
milliseconds from PNG to JPEG, and writes large.png of 8192x8192.
pillow_contents.py check DIRECTORY: reads our JPEGs; fails when Pillow sees another picture than in its own.
"""

import io
import math
import statistics
import sys
import time
from pathlib import Path

from PIL import Image, ImageChops, ImageStat

command, directory = sys.argv[1], Path(sys.argv[2])


def psnr(image, original):
    squares = ImageStat.Stat(ImageChops.difference(image, original)).sum2
    error = sum(squares) / (3 * original.width * original.height)
    return math.inf if error == 0 else 10 * math.log10(255 * 255 / error)


def jpeg(png):
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(out, "JPEG", quality=90, optimize=True)
    return out.getvalue()


def make():
    repetitions = int(sys.argv[3])
    for ppm in sorted(directory.glob("*.ppm")):
        if ppm.stem == "picture":
            continue
        Image.open(ppm).save(ppm.with_suffix(".png"), compress_level=4)
        png, times = ppm.with_suffix(".png").read_bytes(), []
        for _ in range(repetitions):
            begun = time.process_time()
            result = jpeg(png)
            times.append(time.process_time() - begun)
        ppm.with_suffix(".pillow.jpg").write_bytes(result)
        print(ppm.stem, f"{statistics.median(times) * 1000:.2f}", sep="\t")
    large = Image.open(directory / "picture.ppm").resize((8192, 8192), Image.Resampling.NEAREST)
    large.save(directory / "large.png", compress_level=1)


def check():
    ours = sorted(directory.glob("*.ours.jpg"))
    wrong = [] if ours else ["there are none"]
    for path in ours:
        name = path.name.removesuffix(".ours.jpg")
        original = Image.open(directory / f"{name}.ppm")
        seen = Image.open(path)
        seen.load()
        theirs = Image.open(io.BytesIO(jpeg((directory / f"{name}.png").read_bytes())))
        # The difference that rounding makes, in dB.
        if seen.size != original.size or psnr(seen, original) < psnr(theirs, original) - 0.02:
            wrong.append(name)
    if wrong:
        sys.exit(f"Pillow sees other pictures in our JPEGs than in its own: {', '.join(wrong)}")
    print(f"Pillow decodes all {len(ours)} of our JPEGs as well as its own")


{"make": make, "check": check}[command]()
