"""Enlarge a photo four times in three lines; run as ``python examples/restore_image.py photo.png large.png``."""

import sys

import atd


def main(source: str, target: str) -> None:
    model = atd.load("atd_light_sr_x4", weights="bundled")
    image = atd.restore(model, source, progress=True)
    image.save(target, icc_profile=image.info.get("icc_profile"))


if __name__ == "__main__":
    main(*sys.argv[1:])
