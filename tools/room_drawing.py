"""Draw the rooms of the package floor by floor, with their arrows, as a scalable picture without scripts."""

from __future__ import annotations

from html import escape

from tools.rooms import House, direct_imports

WIDTH, ROW, BOX_HEIGHT, LETTER = 960, 84, 34, 8.5


def svg(house: House) -> str:
    """A drawing of `house`: the bottom floor below, an arrow for every import that no longer chain implies."""
    by_floor: dict[int, list[str]] = {}
    for room, floor in sorted(house.floors.items()):
        by_floor.setdefault(floor, []).append(room)
    top = max(by_floor)
    height = top * ROW
    centre = {
        room: (WIDTH * (index + 0.5) / len(rooms), (top - floor + 0.5) * ROW)
        for floor, rooms in by_floor.items()
        for index, room in enumerate(rooms)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="14">',
        '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#777"/></marker>',
    ]
    for room in sorted(house.rooms):
        for other in sorted(direct_imports(house.rooms, room)):
            (x1, y1), (x2, y2) = centre[room], centre[other]
            start, end = y1 + BOX_HEIGHT / 2, y2 - BOX_HEIGHT / 2
            bend = (end - start) / 2
            lines.append(
                f'<path d="M{x1:.0f} {start:.0f}C{x1:.0f} {start + bend:.0f} {x2:.0f} {end - bend:.0f} {x2:.0f} {end:.0f}"'
                ' fill="none" stroke="#999" marker-end="url(#head)"/>'
            )
    for room, (x, y) in centre.items():
        name = room.removeprefix("atd.")
        width = len(name) * LETTER + 24
        lines.append(
            f'<rect x="{x - width / 2:.0f}" y="{y - BOX_HEIGHT / 2:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="6"'
            ' fill="#eef3fb" stroke="#456"/>'
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" fill="#123">{escape(name)}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])
