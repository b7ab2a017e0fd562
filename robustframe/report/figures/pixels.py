"""Images inside a chart."""

import base64
import io

import torch
from PIL import Image
from torch import Tensor


def embedded(image: Tensor, side: int) -> str:
    """Return an image as a URL that holds it.

    Args:
        image: shape (1 or 3, height, width); what lies outside [0, 1] is cut.
        side: a smaller image is enlarged, each pixel to a square of whole pixels, until it is about so wide.

    Returns:
        A PNG in a ``data:`` URL, the same for the same image.
    """
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    times = max(1, round(side / max(picture.size)))
    picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
