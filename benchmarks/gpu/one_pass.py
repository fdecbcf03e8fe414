"""One forward pass, and backward where asked, of a network of one layer: for tools that watch a process.

python -m benchmarks.gpu.one_pass ATD --tiny --backward
"""

from __future__ import annotations

import argparse

ONE_OF_EACH = {
    "ATD": "atd_sr_x4",
    "ATDCVPR": "atd_cvpr_sr_x4",
    "ATDReal": "atd_real_sr_x4",
    "ATDU": "atd_u_color_dn25",
}
"""A network of the registry for each family."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=ONE_OF_EACH)
    parser.add_argument("--tiny", action="store_true", help="with few channels, on a tiny image")
    parser.add_argument("--backward", action="store_true")
    args = parser.parse_args()

    import torch

    import atd
    from benchmarks.gpu.sizes import REHEARSAL

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    one_layer = {"depths": [1], "num_heads": [4]}
    model = atd.create(ONE_OF_EACH[args.network], **(REHEARSAL.overrides[args.network] if args.tiny else one_layer))
    model = model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32).train(args.backward)
    image = torch.rand(1, model.in_channels, *((8, 12) if args.tiny else (128, 128)), device=device)
    with atd.ops.use("triton"), torch.set_grad_enabled(args.backward):
        output = model(image)
        if args.backward:
            output.sum().backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    print(f"{args.network}: {tuple(output.shape)}, finite: {bool(output.isfinite().all())}")


if __name__ == "__main__":
    main()
