"""The tables of docs/backends.md from the results of calls, and the table that tiles are planned with."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.gpu import results
from benchmarks.gpu.results import Row

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
NOT_MEASURED = "Not measured yet."

ROUTES = {
    "reference float32": "authors' formulas, float32",
    "reference bfloat16 autocast": "authors' formulas, bfloat16 autocast",
    "reference+checkpoint bfloat16 autocast": "the same with checkpoints",
    "torch bfloat16": "`torch`, bfloat16",
    "torch bfloat16 autocast": "`torch`, bfloat16 autocast",
    "triton bfloat16": "`triton`, bfloat16",
    "triton float16": "`triton`, float16",
    "triton float32": "`triton`, float32",
    "triton bfloat16 autocast": "`triton`, float32 weights, autocast",
    "triton bfloat16 graph": "`triton`, bfloat16, CUDA graph",
    "restore()": "`restore()`, image to image",
}
"""Variants in the order of the tables, as the page calls them."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("report", help="the tables of docs/backends.md from results", description=__doc__)
    command.add_argument("output", type=Path, nargs="+", metavar="OUT", help="folders that calls wrote to")
    command.add_argument("--page", type=Path, default=PAGE, help="page with the places of the tables")
    command.add_argument("--memory-table", type=Path, metavar="FILE", help="write the table for ATD_MEMORY_TABLE")


def run(args: argparse.Namespace) -> None:
    rows = [row for folder in args.output for path in sorted(folder.glob("*.csv")) for row in results.read(path)]
    if not rows:
        raise SystemExit(f"no results in {', '.join(map(str, args.output))}")
    if any(row.status == results.REHEARSED for row in rows):
        raise SystemExit("these results are of a rehearsal: its figures mean nothing")
    if args.memory_table:
        args.memory_table.write_text(json.dumps(memory_table(rows), indent=2) + "\n")
        print(args.memory_table)
    text = args.page.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        if lines := table(rows):
            text = replaced(text, name, [machine(rows), "", *lines])
    args.page.write_text(text, encoding="utf-8")
    print(args.page)


def replaced(text: str, name: str, lines: Sequence[str]) -> str:
    """The page with other lines between the markers of a table."""
    begin, end = f"<!-- gpu: {name} -->\n", f"<!-- /gpu: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"the page needs one {begin.strip()} and one {end}")
    before, rest = text.split(begin)
    return before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]


def machine(rows: Sequence[Row]) -> str:
    """What the figures below were measured on."""
    found = {row.quantity: row.value for row in rows if row.step == "machine"}
    return (
        f"On one {found.get('device', 'unknown card')}, torch {found.get('torch', '?')}, triton "
        f"{found.get('triton', '?')}, CUDA {found.get('cuda', '?')}:"
    )


def cell(rows: Sequence[Row], quantity: str, form: Callable[[float], str]) -> str:
    """A figure of one case in words; the reason in a word where there is none, "–" where nobody asked."""
    for row in reversed(rows):  # a later call may have reached what an earlier one did not
        if row.quantity == quantity:
            return form(float(row.value))
        if row.quantity == "" and row.status != results.MEASURED:
            return row.status
    return "–"


def value(rows: Sequence[Row], quantity: str) -> float | None:
    found = [float(row.value) for row in rows if row.quantity == quantity]
    return found[-1] if found else None


def grid(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown, without the columns in which nothing stands."""
    used = [index for index in range(len(header)) if any(line[index] != "–" for line in lines)]
    table = [[line[index] for index in used] for line in (header, ["---"] * len(header), *lines)]
    return [f"| {' | '.join(line)} |" for line in table]


def cases(rows: Sequence[Row], *steps: str) -> dict[tuple[str, str], dict[str, list[Row]]]:
    """Rows by name and size, then by variant."""
    found: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        if row.step in steps and (row.name or row.size):
            found.setdefault((row.name, row.size), {}).setdefault(row.variant, []).append(row)
    return found


def milliseconds(number: float) -> str:
    return f"{number:.3g} ms" if number < 1000 else f"{number / 1e3:.3g} s"


def megabytes(number: float) -> str:
    return f"{number / 1e6:.0f} MB"


def speeds(rows: Sequence[Row], *steps: str) -> list[str]:
    """Median time, memory, distance and the gain over the authors' formulas, a line for each route."""
    lines: list[list[str]] = []
    for (name, size), variants in cases(rows, *steps).items():
        plain = value(variants.get("reference float32", []), "p50_ms")
        half = value(variants.get("reference bfloat16 autocast", []), "p50_ms")
        for variant in sorted(variants, key=lambda variant: [*ROUTES, variant].index(variant)):
            own = variants[variant]
            lines.append(
                [
                    f"{name}, {size.replace('x', '×')}",
                    ROUTES.get(variant, variant),
                    cell(own, "p50_ms", milliseconds),
                    cell(own, "p50_ms", lambda ms, plain=plain: f"{plain / ms:.2f}" if plain else "–"),
                    cell(own, "p50_ms", lambda ms, half=half: f"{half / ms:.2f}" if half else "–"),
                    cell(own, "peak_bytes", megabytes),
                    cell(own, "relative_error", lambda error: f"{error:.1e}"),
                ]
            )
    header = ("network, input", "route", "median", "over float32", "over autocast", "peak memory", "relative distance")
    return grid(header, lines) if lines else []


def tests(rows: Sequence[Row]) -> list[str]:
    worst: dict[str, list[float]] = {}
    for (_, _), variants in cases(rows, "goldens").items():
        for variant, own in variants.items():
            error = value(own, "relative_error")
            worst.setdefault(variant, []).append(float("inf") if error is None else error)
    lines = [
        [variant, str(sum(error < float("inf") for error in errors)), f"{max(errors):.1e}"]
        for variant, errors in worst.items()
    ]
    outcomes = {row.quantity: row.value for row in rows if row.step == "pytest" and row.quantity and not row.name}
    counted = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    text = [f"`pytest -m gpu`: {counted}.", ""] if outcomes else []
    return [*text, *grid(("route", "golden networks", "worst relative error"), lines)] if lines else text


def memory(rows: Sequence[Row]) -> list[str]:
    """Bytes per pixel of each network by route, at the largest side that was measured."""
    by_name: dict[str, dict[str, list[Row]]] = {}
    by_size = sorted(cases(rows, "pixels").items(), key=lambda item: int(item[0][1].split("x")[0]))
    for (name, _), variants in by_size:
        for variant, own in variants.items():
            by_name.setdefault(name, {})[variant] = own
    columns = [variant for variant in ROUTES if any(variant in variants for variants in by_name.values())]
    lines = [
        [
            name,
            *(cell(variants.get(column, []), "bytes_per_pixel", lambda size: f"{size:,.0f}") for column in columns),
            cell(variants.get("triton bfloat16", []), "estimate_over_peak", lambda ratio: f"{ratio:.2f}"),
        ]
        for name, variants in by_name.items()
    ]
    header = ("network, bytes a pixel", *(ROUTES[column] for column in columns), "planned, over bfloat16")
    return grid(header, lines) if lines else []


def largest(rows: Sequence[Row]) -> list[str]:
    lines = [
        [name, ROUTES.get(variant, variant), cell(own, "side", lambda side: f"{side:.0f}×{side:.0f}")]
        for (name, _), variants in cases(rows, "largest").items()
        for variant, own in variants.items()
    ]
    return grid(("network", "route", "largest untiled input"), lines) if lines else []


def kernels(rows: Sequence[Row]) -> list[str]:
    """The best of the launch options that were tried in place of each op's own, where it is a right one."""
    lines: list[list[str]] = []
    for (name, size), variants in cases(rows, "options").items():
        for variant, own in variants.items():
            others = [
                (float(row.value), row.quantity.removesuffix(", ms")) for row in own if row.quantity.endswith(", ms")
            ]
            others = [other for other in others if other[1] != "own options"]
            time, options = min(others, default=(None, "–"))
            lines.append(
                [
                    f"{name}, {size.replace('x', '×')}",
                    variant,
                    cell(own, "own options, ms", milliseconds),
                    options,
                    "–" if time is None else milliseconds(time),
                ]
            )
    return grid(("op, tokens", "pass", "own options", "best of the others", "its time"), lines) if lines else []


TABLES: dict[str, Callable[[Sequence[Row]], list[str]]] = {
    "tests": tests,
    "networks": lambda rows: speeds(rows, "goals", "further"),
    "training": lambda rows: speeds(rows, "training"),
    "kernels": kernels,
    "memory": memory,
    "largest": largest,
}
"""By the name of their place on the page."""


def memory_table(rows: Sequence[Row]) -> dict[str, object]:
    """Peak bytes per pixel of the Triton route by architecture, width and dtype: the largest that was measured."""
    found: dict[str, dict[str, float]] = {}
    for variants in cases(rows, "pixels").values():
        for variant, own in variants.items():
            backend, _, dtype = variant.partition(" ")
            named = {row.quantity: row.value for row in own}
            if backend != "triton" or "bytes_per_pixel" not in named or "embed_dim" not in named:
                continue
            figures = found.setdefault(f"{named['architecture']} {named['embed_dim']}", {})
            figures[dtype] = max(figures.get(dtype, 0.0), float(named["bytes_per_pixel"]))
    if not found:
        raise SystemExit("no memory was measured: python -m benchmarks.gpu memory OUT")
    return {"measured": machine(rows).removesuffix(":"), "backend": "triton", "bytes_per_pixel": found}
