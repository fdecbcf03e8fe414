"""Restore a folder or a list of files on a Ray cluster with Ray Data; ``pip install 'atd-restoration[ray]'``.

    python examples/ray_restore.py -i photos -o restored --model atd_light_sr_x4 --weights bundled --workers 4 --gpus 1

The files must be reachable under the same paths from every node (a network file system). Each worker loads the network
once. Existing results are skipped, a bad file is reported and the rest go on, as in ``atd restore``.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

import ray

import atd
from atd.errors import sentence_for
from atd.restoration.batch import label_of, plan_jobs


class Restorer:
    """Lives on a worker, holds the network, restores one file per call."""

    def __init__(self, model: str, weights: str, device: str | None) -> None:
        self.network = atd.load(model, weights=weights, device=device)

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        """Restore one row's file; the row with `status` and `message`."""
        target = Path(row["target"])
        if target.exists():
            return row | {"status": "skipped", "message": ""}
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            atd.restore_file(self.network, row["source"], target)
        except Exception as error:
            message = sentence_for(error) or "".join(traceback.format_exception(error))
            return row | {"status": "failed", "message": message}
        return row | {"status": "restored", "message": ""}


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--input", nargs="+", type=Path, required=True, help="files and folders")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--model", default="atd_light_sr_x4")
    parser.add_argument("--weights", default="official")
    parser.add_argument("--recursive", action="store_true")
    parser.add_argument("--workers", type=int, default=1, help="how many copies of the network work at a time")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of each worker")
    args = parser.parse_args(arguments)
    inputs, output = [path.absolute() for path in args.input], args.output.absolute()
    jobs = plan_jobs(inputs, output, label=label_of(args.model), recursive=args.recursive)
    rows = ray.data.from_items([{"source": str(job.source), "target": str(job.target)} for job in jobs])
    outcomes = rows.map(
        Restorer,
        fn_constructor_args=(args.model, args.weights, "cuda" if args.gpus else "cpu"),
        compute=ray.data.ActorPoolStrategy(size=args.workers),
        num_gpus=args.gpus,
    ).take_all()
    for outcome in outcomes:
        if outcome["status"] == "failed":
            print(f"{outcome['source']}: {outcome['message']}", file=sys.stderr)
    counts = {status: sum(outcome["status"] == status for outcome in outcomes) for status in STATUSES}
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return 1 if counts["failed"] else 0


STATUSES = ("restored", "skipped", "failed")

if __name__ == "__main__":
    sys.exit(main())
