"""Measurements in sentences: what was found, and what could not be told."""

from __future__ import annotations

from atd.advice.measurements import Measurements

_CHANNELS = {1: "gray", 2: "gray with transparency", 3: "RGB", 4: "RGB with transparency"}


def findings_of(found: Measurements) -> tuple[str, ...]:
    """One sentence for each thing that was measured or could not be."""
    return (_kind(found), *_compression(found), _noise(found), _resolution(found))


def _kind(found: Measurements) -> str:
    kind = f"{_CHANNELS[found.channels]}, {found.bits} bits a sample"
    stored = ", gray content stored as colour" if found.gray and found.channels > 2 else ""
    name = f", {found.format}" if found.format else ""
    return f"{found.width} x {found.height} pixels{name}, {kind}{stored}"


def _compression(found: Measurements) -> list[str]:
    lossy = found.compression
    if lossy is None:
        return ["JPEG: no trace of it in the pixels"]
    if lossy.kind == "WebP":
        return ["WebP: stored with loss; the file does not say how strongly, and it was not measured"]
    if lossy.source == "pixels":
        return [f"JPEG: the pixels were compressed at about quality {lossy.quality} before they were stored like this"]
    nearness = "" if lossy.exact else "about "
    why = "from its quantisation tables" if lossy.exact else "the nearest to its own quantisation tables"
    colour = f", colour stored {lossy.subsampling}" if lossy.subsampling else ""
    lines = [f"JPEG: {nearness}quality {lossy.quality}, {why}{colour}"]
    if lossy.earlier is not None:
        lines.append(f"JPEG: the pixels were compressed before, at about quality {lossy.earlier}")
    return lines


def _noise(found: Measurements) -> str:
    noise = found.noise
    if noise.luma is None and noise.colour is None:
        return "noise: cannot be told, the picture is too small or its areas are constant or clipped"
    if noise.colour is None or noise.luma is None:
        return f"noise: about sigma {noise.strength:.1f} of 255"
    return f"noise: about sigma {noise.colour:.1f} of 255 in colour, {noise.luma:.1f} in brightness"


def _resolution(found: Measurements) -> str:
    detail = found.resolution
    if detail is None:
        return (
            "detail: cannot be told, the picture is too small, too plain, or full of the blocks of strong compression"
        )
    if detail.enlarged is not None:
        return f"detail: the picture was enlarged before, by {detail.enlarged:g}"
    if detail.soft is not None:
        return f"detail: soft, a picture {detail.soft:g} times smaller would hold as much (blurred, or enlarged)"
    return "detail: as fine as its pixels"
