"""Pillow's figures for the same picture, as tab-separated rows: what, name, CPU milliseconds, file of the result.

Usage: pillow_rows.py DIRECTORY REPETITIONS. Reads picture.ppm, writes picture.png as ComfyUI does (compress_level 4).
"""

import io
import statistics
import sys
import time
from pathlib import Path

from PIL import Image

directory, repetitions = Path(sys.argv[1]), int(sys.argv[2])
Image.open(directory / "picture.ppm").save(directory / "picture.png", compress_level=4)
png = (directory / "picture.png").read_bytes()


def decode():
    return Image.open(io.BytesIO(png)).convert("RGB")


picture = decode()


def encode(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def jpeg(image, optimize=True):
    return encode(image, "JPEG", quality=90, optimize=optimize)


def report(what, name, work):
    times = []
    for _ in range(repetitions):
        begun = time.process_time()
        result = work()
        times.append(time.process_time() - begun)
    file = "-"
    if isinstance(result, bytes):
        file = f"pillow-{what}-{len(name)}.bin"
        (directory / file).write_bytes(result)
    print(what, name, f"{statistics.median(times) * 1000:.2f}", file, sep="\t")


report("decode", "Pillow", decode)
report("jpeg", "Pillow optimize", lambda: jpeg(picture))
report("jpeg", "Pillow", lambda: jpeg(picture, optimize=False))
report("webp", "Pillow lossy q90", lambda: encode(picture, "WEBP", quality=90))
report("webp", "Pillow lossless", lambda: encode(picture, "WEBP", lossless=True))
report("whole", "Pillow PNG to JPEG", lambda: jpeg(decode()))
