"""Put the result of a training into the package: ``python -m tools.bundle RUN``.

``RUN`` is the output folder of ``atd train``. Its result, the weights after the last iteration and not those that score
best on a test set, become ``atd/bundled/NAME.safetensors`` (float16), and
``NAME.md`` beside them the card: data, training, scores and terms. Scores are those that
``atd evaluate NAME --weights bundled --data DATA --output DIR`` and
``python -m tools.score_tables --record DIR`` have left; run this once more after them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from atd import loading, registry
from atd.errors import InputError
from atd.evaluation.formatting import markdown_table, write_text
from atd.registry import ModelInfo
from atd.training import recipes
from atd.training import state as training_state
from atd.training.recipes import Recipe
from atd.weights.saving import write_bundled
from tools import score_tables

_TERMS = (
    "The weights are under the notice LICENSE beside this file: they were trained on images for research and "
    "education, and come without warranty."
)


def bundle(run: Path, processor: str) -> Path:
    """Write weights and card of the training in ``run``; scores of weights that are replaced are deleted.

    Args:
        run: output folder of `atd train`, finished.
        processor: what the training ran on, for the card.

    Returns:
        The weight file.
    """
    recipe = recipes.get(str(run / "recipe.toml"))
    info = registry.get(recipe.model)
    model = loading.load(run / "model")
    state, _ = training_state.load_latest(run / "checkpoints")
    if state is None:
        raise InputError(f"{run / 'checkpoints'} holds no checkpoint; expected the output folder of `atd train`.")
    path = info.bundled_path
    before = load_file(path) if path.is_file() else {}
    write_bundled(model, path)
    after = load_file(path)
    # Tensors, not bytes: safetensors writes its metadata in any order.
    if after.keys() != before.keys() or any(not torch.equal(after[name], before[name]) for name in after):
        path.with_suffix(".json").unlink(missing_ok=True)
    training = _training(recipe, state.iteration, state.minutes, processor)
    write_text(path.with_suffix(".md"), card(info, training))
    return path


def card(info: ModelInfo, training: str) -> str:
    """The Markdown card of bundled weights."""
    size = info.bundled_path.stat().st_size
    lines = [
        f"# {info.name}, bundled weights",
        "",
        f"`{info.architecture}`, {info.parameters:,} parameters, stored as float16 ({size / 1e6:.1f} MB): "
        f'`atd.load("{info.name}", weights="bundled")`. Network: {info.paper}. The weights are this project\'s own.',
        "",
        training,
        "",
    ]
    for run in score_tables.measured_runs(info):
        scores = [
            [name, str(entry["count"]), f"{entry['psnr']:.2f}", f"{entry['ssim']:.4f}"]
            for name, entry in run["sets"].items()
        ]
        head = ["set", "images", "PSNR (dB)", "SSIM"]
        lines += [f"Measured by `{score_tables.command(info, run)}`:", "", markdown_table([head, *scores]), ""]
    return "\n".join([*lines, _TERMS, ""])


def _training(recipe: Recipe, iterations: int, minutes: float, processor: str) -> str:
    start = "from the weights of " + Path(recipe.finetune_from).name if recipe.finetune_from else "from scratch"
    patches = ", then ".join(
        f"batches of {batch} patches of {patch}×{patch} pixels"
        for patch, batch in dict.fromkeys(zip(recipe.patch, recipe.batch, strict=True))
    )
    target = ""
    if recipe.sigma:
        target = f" for Gaussian noise of σ {recipe.sigma[0]:g} to {recipe.sigma[-1]:g},"
    elif recipe.quality:
        target = f" for JPEG artefacts of quality {recipe.quality[0]} to {recipe.quality[-1]},"
    return (
        f"Trained{target} {start} on {', '.join(recipe.images)} of the project's data (BSDS500 train and test images "
        f"and T91; no image of a test set): {iterations} iterations with {patches} of the network's input, "
        f"{minutes:.0f} minutes on {processor}, by `atd train {recipe.id}` with PyTorch "
        f"{torch.__version__.split('+')[0]}."
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder of atd train")
    parser.add_argument("--processor", default="one core of a CPU", help="what the training ran on, for the card")
    args = parser.parse_args()
    print(bundle(args.run, args.processor))


if __name__ == "__main__":
    main()
