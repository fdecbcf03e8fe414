"""The README.md that goes with saved weights."""

from atd import registry, tasks
from atd.weights.network import StorableNetwork

CARD_MARK = "library_name: atd-restoration"
"""A line of the front matter of every card of ours."""

_TASKS = {
    tasks.SuperResolution.key: "image super-resolution",
    tasks.RealWorld.key: "real-world image super-resolution",
    tasks.Denoising.key: "image denoising",
    tasks.JpegArtefacts.key: "JPEG artefact removal",
    tasks.UNKNOWN: "image restoration",
}


def model_card(model: StorableNetwork, source: str | None = None) -> str:
    """Markdown with the hub's front matter. `source` tells where official weights came from; only then is a licence
    stated, because the licence of weights that somebody trained is theirs to choose."""
    info = registry.find(model.name)
    task = _TASKS[model.task] + (f" ×{model.scale}" if model.scale > 1 else "")
    front = [CARD_MARK, "pipeline_tag: image-to-image", "tags:", "- image-restoration", "- atd"]
    if info and source:
        front.insert(0, f"license: {info.licence.lower()}")
    channels = {1: "gray", 3: "RGB"}.get(model.in_channels, f"{model.in_channels}-channel")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        "---",
        *front,
        "---",
        "",
        f"# {model.name or model.architecture}",
        "",
        f"`{model.architecture}` for {task} of {channels} images, {parameters:,} parameters, in the format of the "
        "Python package `atd-restoration`.",
        "",
        "```python",
        "import atd",
        "",
        'model = atd.load("path/to/this/folder")  # or the repository, "org/repo@revision"',
        'atd.restore(model, "photo.png").save("restored.png")',
        "```",
    ]
    if info:
        lines += ["", f"Network: {info.paper}."]
    if info and source:
        whose = "the authors'" if info.author is None else f"by {info.author}"
        lines += ["", f"Weights: {whose}, {source}; licence {info.licence}."]
    if info and source and info.attribution:
        lines += ["", f"Attribution: {info.attribution}. The values are unchanged; the file's format is another."]
    if info and source and info.scores:
        compared = "Y" if info.scale > 1 else channels
        lines += ["", f"Published PSNR (dB) / SSIM on {compared}:", "", "| set | PSNR | SSIM |", "| --- | --- | --- |"]
        for name, (psnr, ssim) in info.scores.items():
            lines.append(f"| {name} | {psnr:.2f} | {'–' if ssim is None else f'{ssim:.4f}'} |")
    return "\n".join(lines) + "\n"
