"""Draw the rooms of the package floor by floor, with their arrows, as a scalable picture without scripts."""

from __future__ import annotations

from html import escape

from tools.rooms import House, direct_imports

# Pixels of the drawing.
WIDTH, FLOOR, BOX, LETTER = 960, 84, 34, 8.5

_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="monospace" font-size="14">
<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 8 4 0 8z" fill="#777"/></marker>
"""
_ARROW = """\
<path d="M{x1:.0f} {y1:.0f}C{x1:.0f} {middle:.0f} {x2:.0f} {middle:.0f} {x2:.0f} {y2:.0f}"
 fill="none" stroke="#999" marker-end="url(#head)"/>
"""
_BOX = """\
<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height}" rx="6" fill="#eef3fb" stroke="#456"/>
<text x="{x:.0f}" y="{line:.0f}" text-anchor="middle" fill="#123">{name}</text>
"""


def svg(house: House) -> str:
    """A drawing of `house`: the bottom floor below, an arrow for every import that no longer chain implies."""
    by_floor: dict[int, list[str]] = {}
    for room, floor in sorted(house.floors.items()):
        by_floor.setdefault(floor, []).append(room)
    highest = max(by_floor)
    centres = {
        room: (WIDTH * (index + 0.5) / len(rooms), (highest - floor + 0.5) * FLOOR)
        for floor, rooms in by_floor.items()
        for index, room in enumerate(rooms)
    }
    parts = [_HEAD.format(width=WIDTH, height=highest * FLOOR)]
    for room in sorted(house.rooms):
        for other in sorted(direct_imports(house.rooms, room)):
            (x1, y1), (x2, y2) = centres[room], centres[other]
            y1, y2 = y1 + BOX / 2, y2 - BOX / 2
            parts.append(_ARROW.format(x1=x1, y1=y1, x2=x2, y2=y2, middle=(y1 + y2) / 2))
    for room, (x, y) in centres.items():
        name = room.removeprefix("atd.")
        width = len(name) * LETTER + 24
        left, top = x - width / 2, y - BOX / 2
        parts.append(_BOX.format(left=left, top=top, width=width, height=BOX, x=x, line=y + 5, name=escape(name)))
    return "".join([*parts, "</svg>\n"])
