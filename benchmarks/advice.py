"""How good the estimates behind `atd advise` are: each beside a truth that is known, on crops of test sets.

    ATD_DATA=... python -m benchmarks.advice                 # every table, as the documentation shows them
    ATD_DATA=... python -m benchmarks.advice noise --sets denoise/Kodak24 --images 24

Of every image the middle --crop pixels are taken and degraded: with Gaussian noise, by JPEG (read as a file, and stored
as PNG again), by enlarging a smaller crop. What is printed is a table for each question.
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from atd.advice.compression import quality_of_pixels, quality_of_table
from atd.advice.enlargement import resolution
from atd.advice.noise import noise_level
from atd.advice.windows import Samples, intensities, luma

SETS = ("denoise/Kodak24", "denoise/McMaster", "denoise/CBSD68", "sr/Set14/HR", "sr/Urban100/HR")
SIGMAS = (0, 5, 10, 15, 25, 50)
QUALITIES = (10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 95)
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}
FACTORS = (1.5, 2, 3, 4)


def main() -> None:
    tables = {"noise": noise_table, "jpeg": jpeg_table, "enlarged": enlarged_table, "gain": gain_table}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="*", choices=[*tables, []], help="noise, jpeg, enlarged, gain (all)")
    parser.add_argument("--sets", nargs="+", default=SETS, help="folders below ATD_DATA")
    parser.add_argument("--images", type=int, default=12, help="of each set, spread evenly over it")
    parser.add_argument("--crop", type=int, default=256, help="side of the crops")
    args = parser.parse_args()
    crops = list(load_crops([Path(os.environ["ATD_DATA"]) / name for name in args.sets], args.images, args.crop))
    print(f"{len(crops)} crops of {args.crop}×{args.crop} from {', '.join(args.sets)}\n")
    for name in args.table or tables:
        tables[name](crops)


def load_crops(folders: list[Path], images: int, side: int) -> Iterator[Image.Image]:
    for folder in folders:
        files = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".bmp", ".tif"))
        if not files:
            raise SystemExit(f"no images in {folder}")
        for file in files[:: max(1, len(files) // images)][:images]:
            image = Image.open(file).convert("RGB")
            left, top = (max(length - side, 0) // 2 for length in image.size)
            yield image.crop((left, top, min(left + side, image.width), min(top + side, image.height)))


def samples_of(image: Image.Image) -> Samples:
    """(h, w, c) as `atd advise` looks at it."""
    pixels = np.asarray(image)
    return intensities(pixels.reshape(*pixels.shape[:2], -1), 255)


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def spread(values: list[float]) -> tuple[str, str]:
    return f"{np.mean(values):.1f}", f"{min(values):.1f} … {max(values):.1f}"


def with_noise(image: Image.Image, sigma: float, generator: np.random.Generator, *, same: bool = False) -> Image.Image:
    samples = np.asarray(image).astype(np.float64)
    noise = generator.normal(0, sigma, samples.shape[:2] if same else samples.shape) if sigma else 0
    samples = samples + (noise[:, :, None] if same and sigma else noise)
    return Image.fromarray(np.clip(np.rint(samples), 0, 255).astype(np.uint8))


def noise_table(crops: list[Image.Image]) -> None:
    generator = np.random.default_rng(0)
    row(
        "noise σ",
        "colour: mean",
        "range",
        "gray: mean",
        "range",
        "the same in R, G, B: luma, mean",
        "range",
        "its colour, range",
    )
    row(*["---"] * 8)
    for sigma in SIGMAS:
        colour, gray, same, rest = [], [], [], []
        for crop in crops:
            colour.append(noise_level([samples_of(with_noise(crop, sigma, generator))]))
            gray.append(noise_level([samples_of(with_noise(crop.convert("L"), sigma, generator))]))
            samples = samples_of(with_noise(crop, sigma, generator, same=True))
            same.append(noise_level([luma(samples)[:, :, None]]))
            rest.append(noise_level([samples]))
        columns = [[value for value in values if value is not None] for values in (colour, gray, same, rest)]
        row(sigma, *spread(columns[0]), *spread(columns[1]), *spread(columns[2]), spread(columns[3])[1])
    print()


def jpeg_file(image: Image.Image, quality: int, subsampling: str) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(file)


def jpeg_table(crops: list[Image.Image]) -> None:
    row(
        "quality",
        "tables: largest error",
        "pixels 4:2:0: found",
        "largest error",
        "pixels 4:4:4: found",
        "largest error",
    )
    row(*["---"] * 6)
    for quality in QUALITIES:
        cells: list[object] = []
        for subsampling in ("4:2:0", "4:4:4"):
            files = [jpeg_file(crop, quality, subsampling) for crop in crops]
            if not cells:
                cells.append(max(abs(quality_of_table(file.quantization[0]).quality - quality) for file in files))
            found = [quality_of_pixels([luma(samples_of(file.convert("RGB")))]) for file in files]
            errors = [abs(each - quality) for each in found if each is not None]
            cells += [f"{len(errors)}/{len(crops)}", max(errors, default="–")]
        row(quality, *cells)
    clean = sum(quality_of_pixels([luma(samples_of(crop))]) is not None for crop in crops)
    noise = np.random.default_rng(0)
    noisy = sum(quality_of_pixels([luma(samples_of(with_noise(crop, 10, noise)))]) is not None for crop in crops)
    row("never compressed", "", f"{clean}/{len(crops)}", "", f"{noisy}/{len(crops)} with noise of σ 10", "")
    print()


def enlarged_table(crops: list[Image.Image]) -> None:
    row("picture", "told enlarged", "by the right factor", "told soft")
    row(*["---"] * 4)

    def count(name: str, change: Callable[[Image.Image], Image.Image], factor: float | None = None) -> None:
        found = [resolution([luma(samples_of(change(crop)))]) for crop in crops]
        found = [each for each in found if each is not None]
        told = sum(each.enlarged is not None for each in found)
        right = sum(each.enlarged == factor for each in found) if factor else "–"
        soft = sum(each.enlarged is None and each.soft is not None for each in found)
        row(name, f"{told}/{len(found)}", right, soft)

    count("clean", lambda crop: crop)
    for radius in (1, 1.5, 2):
        count(
            f"blurred, Gaussian of σ {radius}",
            lambda crop, radius=radius: crop.filter(ImageFilter.GaussianBlur(radius)),
        )
    for sigma in (5, 25):
        count(f"noise of σ {sigma}", lambda crop, sigma=sigma: with_noise(crop, sigma, np.random.default_rng(0)))
    for quality in (10, 50, 90):
        count(f"JPEG of quality {quality}", lambda crop, q=quality: jpeg_file(crop, q, "4:2:0").convert("RGB"))
    count(
        "reduced by 2, bicubic", lambda crop: crop.resize((crop.width // 2, crop.height // 2), Image.Resampling.BICUBIC)
    )
    for factor in FACTORS:
        for name, kernel in FILTERS.items():
            if factor == 1.5 and name == "nearest":
                continue
            count(f"enlarged ×{factor}, {name}", lambda crop, f=factor, k=kernel: enlarge(crop, f, k), factor)
    for quality in (95, 85, 75):
        for factor in (2, 4):
            count(
                f"enlarged ×{factor}, bicubic, then JPEG of quality {quality}",
                lambda crop, f=factor, q=quality: jpeg_file(
                    enlarge(crop, f, Image.Resampling.BICUBIC), q, "4:2:0"
                ).convert("RGB"),
                factor,
            )
    print()


def enlarge(image: Image.Image, factor: float, kernel: Image.Resampling) -> Image.Image:
    """The middle of the image, as large as the image was; cut so that the grid begins anywhere."""
    width, height = (int(length / factor) + 8 for length in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    small = image.crop((left, top, left + width, top + height))
    large = small.resize((int(width * factor), int(height * factor)), kernel)
    return large.crop((5, 3, 5 + image.width, 3 + image.height))


def gain_table(crops: list[Image.Image]) -> None:
    """From which fault on the bundled networks help: PSNR after less PSNR before, of four Kodak crops."""
    import atd
    from atd.metrics import psnr

    folder = Path(os.environ["ATD_DATA"]) / "denoise" / "Kodak24"
    clean = [
        np.asarray(Image.open(folder / f"kodim{number}.png"))[150:278, 250:378] for number in ("01", "05", "19", "23")
    ]
    generator = np.random.default_rng(0)
    faults: list[tuple[str, str, Callable[[np.ndarray], Image.Image]]] = []
    for quality in (40, 75, 85, 90, 93, 95, 97):
        change = lambda crop, q=quality: jpeg_file(Image.fromarray(crop), q, "4:2:0")  # noqa: E731
        faults.append((f"JPEG of quality {quality}", "atd_u_tiny_color_jpeg", change))
    for sigma in (2, 3, 5, 8, 10, 15):
        change = lambda crop, s=sigma: with_noise(Image.fromarray(crop), s, generator)  # noqa: E731
        faults.append((f"noise of σ {sigma}", "atd_u_tiny_color_dn", change))
    networks = {name: atd.load(name, weights="bundled") for name in dict.fromkeys(name for _, name, _ in faults)}
    row("fault", "bundled network", "gain in dB, each crop")
    row(*["---"] * 3)
    for fault, name, change in faults:
        gains: list[float] = []
        for crop in clean:
            degraded = np.array(change(crop))
            gains.append(float(psnr(atd.restore(networks[name], degraded), crop)) - float(psnr(degraded, crop)))
        row(fault, name, ", ".join(f"{gain:+.1f}" for gain in gains))
    print()


if __name__ == "__main__":
    main()
