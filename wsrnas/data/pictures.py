"""Decode one picture to RGB bytes, and say what is odd about it."""

import numpy as np
from PIL import Image

from wsrnas.runtime.errors import InputError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_ORIENTATION, _TURNED = 0x0112, range(2, 9)  # the entry of EXIF that says how a camera was held; 1: upright
ODD = {  # what a note says of such images, and how they are used
    "turned": ("say in EXIF that they are to be turned or mirrored", "as stored, as in other libraries"),
    "transparent": ("have transparent pixels", "without transparency, in the colours that are stored below it"),
}
_PHOTOMETRIC = 262  # the entry of a TIFF that says what 0 means; 0: white
_GREY_OF_16_BITS = ("PNG", "PPM")  # formats whose 16-bit grey Pillow gives as 32-bit numbers up to 65535


def read_image(path: str, odd: dict[str, list[str]] | None = None) -> np.ndarray:
    """Decode one file to (H, W, 3) uint8 RGB; 16-bit grey is scaled, transparency is dropped.

    Args:
        path: the file.
        odd: receives the path under each key of ``ODD`` that the image fits.

    Raises:
        InputError: the file is not a whole image.
    """
    try:
        with Image.open(path) as image:
            if odd is not None:
                for kind in _oddities(image):
                    odd[kind].append(path)
            return pixels_of(image)
    except MemoryError:
        raise
    except Exception as error:  # the decoders of PIL raise a dozen types; all mean that this file cannot be read
        raise InputError(f"cannot decode the image {path}, expected a whole file of type "
                         f"{', '.join(EXTENSIONS)} ({error})") from error


def _oddities(image: Image.Image) -> list[str]:
    """Return the keys of ``ODD`` that a picture fits."""
    may = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    transparent = may and bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())
    return ["turned"] * (image.getexif().get(_ORIENTATION) in _TURNED) + ["transparent"] * transparent


def pixels_of(image: Image.Image) -> np.ndarray:
    """Return a picture of Pillow as (H, W, 3) uint8 RGB; 16-bit grey is scaled, transparency is dropped.

    Raises:
        ValueError: nothing says which of its numbers is white.
    """
    if image.mode == "F":  # PIL would clip at 255
        raise ValueError("its pixels are floating-point numbers")
    if image.mode.startswith("I"):  # 16-bit grey, which PIL would clip instead of scaling
        if image.mode == "I" and image.format not in _GREY_OF_16_BITS:
            raise ValueError("its pixels are 32-bit or signed numbers")
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
            raise ValueError("it has 16 bits, and white is 0 in it")
        grey = (np.asarray(image).astype(np.int64) * 255 + 32767) // 65535
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    opaque = image.convert("RGBA") if "transparency" in image.info else image
    return np.asarray(opaque.convert("RGB"))
