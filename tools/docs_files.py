"""Hooks of mkdocs: what comes into the site besides docs/.

The pictures of examples/, which the README shows too, and the floor plan, counted and drawn when the pages are built.
In the repository docs/architecture.md holds it as a graph that code hosts draw; the site would need a script from
elsewhere for that, so a picture takes its place.
"""

# mkdocs is in an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tools.room_drawing import svg
from tools.rooms import BEGIN, END, markdown, read_house, sources_of_tree

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

EXAMPLES = Path(__file__).parents[1] / "examples"
DRAWING = "rooms.svg"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs when it has listed docs/."""
    from mkdocs.structure.files import File

    for path in sorted(EXAMPLES.glob("*.png")):
        files.append(File(path.name, str(EXAMPLES), config.site_dir, config.use_directory_urls))
    files.append(File.generated(config, DRAWING, content=svg(read_house(sources_of_tree()))))
    return files


def on_page_markdown(markdown_text: str, page: Page, **_: object) -> str:
    """Called by mkdocs with the text of each page."""
    if BEGIN not in markdown_text:
        return markdown_text
    table = markdown(read_house(sources_of_tree())).partition("```mermaid")[0]
    before, after = markdown_text.partition(BEGIN)[0], markdown_text.partition(END)[2]
    return f"{before}{table}\n![The rooms of the package and their imports]({DRAWING})\n{after}"
