"""Runs a program of torch on images, in a process that knows nothing of this library: torch and the file alone.

python run_program.py PROGRAM IMAGES RESULTS, where IMAGES and RESULTS are lists of tensors by `torch.save`.
"""

import sys

import torch


def main() -> None:
    """Run the program on every image."""
    program, images, results = sys.argv[1:]
    run = torch.export.load(program).module()
    with torch.no_grad():
        torch.save([run(image) for image in torch.load(images)], results)
    assert "atd" not in sys.modules


if __name__ == "__main__":
    main()
