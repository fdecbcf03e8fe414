"""How scores, tables and conditions are written: Markdown, JSON and CSV, and the sentences that state a measurement."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from atd.evaluation.candidates import RunConditions
from atd.evaluation.protocol import Protocol
from atd.system import atomic_write
from atd.tasks import JpegArtefacts


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is the header."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_psnr(psnr: float) -> str:
    """Decibels with the papers' two digits."""
    return "∞" if math.isinf(psnr) else f"{psnr:.2f}"


def format_score(psnr: float, ssim: float | None) -> str:
    """PSNR in dB / SSIM, with the papers' digits; PSNR alone where there is no SSIM."""
    return format_psnr(psnr) if ssim is None else f"{format_psnr(psnr)} / {ssim:.4f}"


def finite_or_none(value: float) -> float | None:
    """`value`, or None for infinity, which JSON cannot hold: equal images have no finite PSNR."""
    return value if math.isfinite(value) else None


def describe_protocol(protocol: Protocol) -> str:
    """One sentence that states what was measured and how."""
    gray = "gray" if protocol.gray_from_colour == "standard" else "gray (of colour files as in the authors' code)"
    compared = {"y": "Y (BT.601, studio range)", "rgb": "RGB", "gray": gray}[protocol.channel]
    rounding = "output rounded to 8 bits" if protocol.rounds else "output clamped, not rounded"
    if not protocol.rounds and isinstance(protocol.task, JpegArtefacts):
        rounding += " (SSIM: rounded to 8 bits)"
    crop = f"{protocol.crop} px left out at each border" if protocol.crop else "no border left out"
    return (
        f"PSNR in dB / SSIM, means over the images; {protocol.task.label}, compared on {compared}, {rounding}, {crop}."
    )


def describe_run(conditions: RunConditions | None) -> str:
    """One sentence that states tiling, self-ensemble, precision, device and backend; empty for a baseline."""
    if conditions is None:
        return ""
    tiling = {"auto": "untiled where memory allows", 0: "untiled"}.get(conditions.tile)
    tiling = tiling or f"tiles of {conditions.tile} px, overlap {conditions.overlap}"
    ensemble = "self-ensemble of 8" if conditions.self_ensemble else "no self-ensemble"
    return f"Run: {tiling}, {ensemble}, {conditions.dtype} on {conditions.device}, backend {conditions.backend}."


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8; the file appears whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write `content`, which holds finite numbers only."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a line for the header and one for each row."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
