"""The templates that the report and the model card are written by."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cfnsr.evaluation.tables import percent, safe

if TYPE_CHECKING:
    from jinja2 import Template


def template(name: str, **filters: Callable[..., Any]) -> "Template":
    """A template by its file's name: HTML is escaped, in Markdown the filter `text` does it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("cfnsr.evaluation"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "text": lambda value: safe(str(value)), **filters}
    return environment.get_template(name)
