"""The size of a clip's frames, changed as the published video processors do it."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def resize_frames(frames: UInt8[np.ndarray, "F H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "F h w 3"]:
    """Resize to (height, width) by Pillow's bicubic filter, along the rows first and then along the columns.

    That is torchvision's order, in which the published processors of clips work. Pillow itself begins with the cheaper
    pass, and what overshoots black or white after the first one is cut off: up to 20 of 256 levels apart.
    """
    if frames.shape[1:3] == size:
        return frames
    bicubic, (height, width) = Image.Resampling.BICUBIC, size
    along_rows = (Image.fromarray(frame).resize((width, len(frame)), resample=bicubic) for frame in frames)
    return np.stack([np.asarray(frame.resize((width, height), resample=bicubic)) for frame in along_rows])
