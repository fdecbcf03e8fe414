"""Put a bicubic enlargement and a restored image side by side; it made the image at the top of the README.

``python examples/before_after.py`` makes that one again; other photos and crops are its arguments.
"""

import argparse
from pathlib import Path

from PIL import Image

import atd

HERE = Path(__file__).parent
CROP = (135, 50, 100, 78)


def before_after(photo: Image.Image, model: str, crop: tuple[int, int, int, int]) -> Image.Image:
    """Left: ``crop`` (left, top, width, height in pixels of the photo) enlarged by bicubic; right: by the network."""
    left, top, width, height = crop
    restored = atd.restore(model, photo, weights="bundled")  # the whole photo: the network looks at all of it
    scale = restored.width // photo.width
    box = (left * scale, top * scale, (left + width) * scale, (top + height) * scale)
    gap = 8
    both = Image.new("RGB", (2 * width * scale + gap, height * scale), "white")
    both.paste(photo.resize(restored.size, Image.Resampling.BICUBIC).crop(box), (0, 0))
    both.paste(restored.crop(box), (width * scale + gap, 0))
    return both


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", default=HERE / "photo.png")
    parser.add_argument("result", nargs="?", default=HERE / "before_after.png")
    parser.add_argument("--model", default="atd_light_sr_x4")
    parser.add_argument("--crop", type=int, nargs=4, default=CROP, metavar=("LEFT", "TOP", "WIDTH", "HEIGHT"))
    args = parser.parse_args()
    before_after(Image.open(args.photo).convert("RGB"), args.model, tuple(args.crop)).save(args.result, optimize=True)


if __name__ == "__main__":
    main()
