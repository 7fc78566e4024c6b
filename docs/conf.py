"""How `make docs` builds the site: Markdown pages, and an API reference from the docstrings."""

import re
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

from docutils.nodes import Node
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from cfnsr import __version__

project = "cfnsr"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_heading_anchors = 3  # for links such as README's #reproduce

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False  # what torch says of forward() is not what ours does
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
add_module_names = False
toc_object_entries_show_parents = "hide"
default_role = "py:obj"  # a name in backticks leads to its entry where there is one

html_theme = "furo"
html_title = f"cfnsr {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False

# Pages outside this folder that stand on the site, so that links work there and in the repository alike.
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#]+)")


class Modules(SphinxDirective):
    """`.. modules:: cfnsr.models`: a section for each module of a room; a new one needs no line anywhere."""

    required_arguments = 1

    def run(self) -> list[Node]:
        self.env.note_reread()  # there may be a new module since the last build
        room = import_module(self.arguments[0])
        found = walk_packages(room.__path__, f"{room.__name__}.")
        names = [module.name for module in found if not module.ispkg]
        titles = [name.removeprefix(f"{room.__name__}.") for name in names]
        sections = (
            f"{title}\n{'-' * len(title)}\n\n.. automodule:: {name}\n"
            for title, name in zip(titles, names, strict=True)
        )
        return self.parse_text_to_nodes("\n".join(sections), allow_section_headings=True)


def setup(app: Sphinx) -> None:
    app.add_directive("modules", Modules)
    app.connect("source-read", lead_to_pages)
    app.connect("include-read", lead_from_above)
    app.connect("autodoc-process-docstring", keep_plain, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", show_forward)


def lead_to_pages(app: Sphinx, document: str, content: list[str]) -> None:
    """A page's link to ../README.md leads to the README's page."""
    content[0] = LINK.sub(lambda link: PAGES.get(link[1].removeprefix("../"), link[1]), content[0])


def lead_from_above(app: Sphinx, path: object, document: str, content: list[str]) -> None:
    """A page taken from the folder above links as seen from there: docs/x.md is a page, LICENSE a file."""

    def target(link: re.Match[str]) -> str:
        page = PAGES.get(link[1], link[1].removeprefix("docs/"))
        return page if page != link[1] else f"../{page}"

    content[0] = LINK.sub(target, content[0])


def keep_plain(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with names in backticks: a bar or a star outside them means itself."""
    example = False
    for place, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            special = r"(`[^`]*`)|([|*]|(?<=\w)_(?!\w))"
            lines[place] = re.sub(special, lambda part: part[1] or "\\" + part[2], line)


def show_forward(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: object) -> bool | None:
    """A forward pass is shown for its shapes; a named tuple's fields stand in its signature already."""
    if name == "forward":
        return False
    return True if (obj.__doc__ or "").startswith("Alias for field number") else None
