"""Plot time and memory against image size from a result of ``python -m benchmarks`` (extra ``bench``).

python -m benchmarks.plot                              # every results/speed_*.csv, a .png beside each
python -m benchmarks.plot results/speed_nvidia_h100_80gb_hbm3.csv
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

from benchmarks.__main__ import RESULTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", type=Path, help="CSV files written by python -m benchmarks")
    args = parser.parse_args()
    for table in args.tables or sorted(RESULTS.glob("speed_*.csv")):
        print(plot(table))


def plot(table: Path) -> Path:
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("Plots need matplotlib: pip install atd-restoration[bench]") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "network"]
    if not rows:
        raise SystemExit(f"{table} holds no network rows; run python -m benchmarks --rows 'network/*'.")
    lines: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        lines[row["name"]][row["variant"]].append(row)
    figure, axes = pyplot.subplots(len(lines), 2, figsize=(10, 3.2 * len(lines)), squeeze=False)
    for (name, variants), (left, right) in zip(lines.items(), axes, strict=True):
        for variant, points in variants.items():
            points = sorted(points, key=lambda row: int(row["size"]))
            left.plot([int(p["size"]) for p in points], [float(p["p50_ms"]) for p in points], "o-", label=variant)
            measured = [p for p in points if p["peak_mb"]]
            right.plot([int(p["size"]) for p in measured], [float(p["peak_mb"]) for p in measured], "o-", label=variant)
        for axis, label in ((left, "milliseconds (p50)"), (right, "peak MB beyond the weights")):
            axis.set(title=name, xlabel="side of the input in pixels", ylabel=label, xscale="log", yscale="log")
            axis.grid(True, which="both", alpha=0.3)
        left.legend(fontsize="small")
    figure.suptitle(rows[0]["device"])
    figure.tight_layout()
    picture = table.with_suffix(".png")
    figure.savefig(picture, dpi=110)
    return picture


if __name__ == "__main__":
    main()
