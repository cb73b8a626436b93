"""The stand-in's test nodes for a real ComfyUI, so that the same tests run against both."""

import time

import torch
from comfy.utils import ProgressBar
from PIL import Image

SEED = ("INT", {"default": 0, "min": 0, "max": 2**64 - 1})


class TestPhoto:
    """A picture with structure and grain, the same for the same seed."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        side = ("INT", {"default": 1024, "min": 1, "max": 16384})
        batch = ("INT", {"default": 1, "min": 1, "max": 4096})
        return {"required": {"width": side, "height": side, "batch_size": batch,
                             "alpha": ("BOOLEAN", {"default": False}), "seed": SEED}}

    def run(self, width, height, batch_size, alpha, seed):
        generator = torch.Generator().manual_seed(seed % 2**63)
        rows = torch.linspace(0, 1, height).reshape(1, height, 1, 1)
        columns = torch.linspace(0, 1, width).reshape(1, 1, width, 1)
        grain = torch.rand((batch_size, height, width, 4 if alpha else 3), generator=generator)
        return ((rows * 0.4 + columns * 0.4 + grain * 0.2).clamp(0, 1),)


class TestSleep:
    """Passes a picture on after a while, with progress and, if wanted, a preview for each step."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 3600.0}),
                             "steps": ("INT", {"default": 10, "min": 1, "max": 10000}),
                             "previews": ("BOOLEAN", {"default": False}), "seed": SEED}}

    def run(self, image, seconds, steps, previews, seed):
        bar = ProgressBar(steps)
        for step in range(1, steps + 1):
            time.sleep(seconds / steps)
            preview = ("JPEG", Image.new("RGB", (64, 64), (seed % 256, step % 256, 0)), 64) if previews else None
            bar.update_absolute(step, steps, preview)
        return (image,)


class TestFail:
    """Raises."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "message": ("STRING", {"default": "boom"}), "seed": SEED}}

    def run(self, image, message, seed):
        raise ValueError(message)


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (TestPhoto, TestSleep, TestFail)}
