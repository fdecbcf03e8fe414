"""What tiling costs a network that looks at its whole input: PSNR-Y against the tile size.

    ATD_DATA=... python -m benchmarks.tiling                    # the bundled x2 network, 10 Urban100 images
    ATD_DATA=... python -m benchmarks.tiling --model atd_sr_x2 --weights official

Of every small image the middle --crop pixels are taken (the untiled run must fit), restored untiled and in tiles,
rounded to 8 bits, and measured as the papers do: Y of BT.601, `scale` pixels of the border left out.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "tiling.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="atd_light_sr_x2")
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--tiles", type=int, nargs="+", default=[64, 96, 128, 192, 256])
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--crop", type=int, default=320, help="side of the small image")
    parser.add_argument("--images", type=int, default=10)
    args = parser.parse_args()

    import atd
    from atd.metrics import psnr
    from atd.restoration.api import restore_tensor

    folder = Path(os.environ["ATD_DATA"]) / "sr" / "Urban100"
    model = atd.load(args.model, weights=args.weights)
    scale = model.scale
    scores: dict[int | None, list[float]] = {tile: [] for tile in (None, *args.tiles)}
    differences: dict[int | None, list[float]] = {tile: [] for tile in (None, *args.tiles)}
    files = sorted((folder / "LR_bicubic" / f"X{scale}").glob("*.png"))[: args.images]
    if not files:
        raise SystemExit(f"no images in {folder / 'LR_bicubic' / f'X{scale}'}")
    for file in files:
        small = np.asarray(Image.open(file).convert("RGB"))
        large = np.asarray(Image.open(next((folder / "HR").glob(file.stem.split("x")[0] + "*"))).convert("RGB"))
        top, left = (max(side - args.crop, 0) // 2 for side in small.shape[:2])
        small = small[top : top + args.crop, left : left + args.crop]
        large = large[top * scale : (top + small.shape[0]) * scale, left * scale : (left + small.shape[1]) * scale]
        x = torch.from_numpy(small.astype(np.float32) / 255).permute(2, 0, 1)
        untiled = None
        for tile, column in scores.items():
            y = restore_tensor(model, x, tile=tile, overlap=args.overlap, dtype=torch.float32)
            result = y.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
            untiled = result if tile is None else untiled
            column.append(float(psnr(result, large, crop=scale, channel="y")))
            differences[tile].append(float(np.abs(result.astype(int) - untiled).mean()))
        line = ", ".join(f"{tile or 'untiled'}: {column[-1]:.3f}" for tile, column in scores.items())
        print(f"{file.stem} {small.shape[1]}x{small.shape[0]}  {line}", flush=True)
    whole = float(np.mean(scores[None]))
    rows = []
    print(f"{args.model} ({args.weights}), {len(files)} crops of Urban100, overlap {args.overlap}")
    print(f"{'tile':>8s} {'PSNR-Y':>8s} {'cost dB':>8s} {'mean |difference| of 255':>25s}")
    for tile, column in scores.items():
        mean, difference = float(np.mean(column)), float(np.mean(differences[tile]))
        print(f"{tile or 'untiled'!s:>8s} {mean:8.3f} {whole - mean:8.3f} {difference:25.3f}")
        rows.append([args.model, args.weights, args.overlap, tile or "untiled", f"{mean:.4f}", f"{whole - mean:.4f}"])
    RESULTS.parent.mkdir(exist_ok=True)
    key = [args.model, args.weights, str(args.overlap)]
    earlier = list(csv.reader(RESULTS.open(newline="")))[1:] if RESULTS.exists() else []
    with RESULTS.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["model", "weights", "overlap", "tile", "psnr_y", "cost_db"])
        writer.writerows([*(row for row in earlier if row[:3] != key), *rows])


if __name__ == "__main__":
    main()
