"""Enlarge a photo four times in two lines; run as ``python examples/restore_image.py photo.png large.png``.

The result keeps the photo's bit depth, transparency, colour profile, EXIF, XMP and resolution.
"""

import sys

import atd


def main(source: str, target: str) -> None:
    """Restore the file `source` into `target`."""
    model = atd.load("atd_light_sr_x4", weights="bundled")
    atd.restore_file(model, source, target, progress=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
