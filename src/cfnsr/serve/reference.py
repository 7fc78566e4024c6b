"""The API's documentation as a page without scripts, written from its OpenAPI description."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

TEMPLATE = Path(__file__).parent / "reference.html"


def reference(description: dict[str, Any]) -> str:
    """HTML of an OpenAPI description.

    Args:
        description: as FastAPI makes it, with references to `#/components/schemas`.
    """
    return _rendered(json.dumps(description))


@lru_cache(maxsize=4)
def _rendered(description: str) -> str:
    from jinja2 import Environment, FileSystemLoader

    told = json.loads(description)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["marked"] = _marked
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return environment.get_template(TEMPLATE.name).render(api=told, operations=_operations(told))


def _marked(text: str) -> Markup:
    """Text with its `code` as HTML."""
    parts = [
        Markup("<code>{}</code>").format(part) if odd % 2 else escape(part)
        for odd, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def _operations(api: dict[str, Any]) -> list[dict[str, Any]]:
    """Each operation with its address, parameters, the example of its answer and what it declines."""
    return [
        {
            **operation,
            "method": method.upper(),
            "path": path,
            "parameters": [_parameter(each) for each in operation.get("parameters", [])],
            "answers": [_answer(api, *each) for each in sorted(operation["responses"].items())],
        }
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    ]


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    schema = parameter["schema"]
    kinds = [schema, *schema.get("anyOf", [])]
    kind = next((each["type"] for each in kinds if each.get("type", "null") != "null"), "")
    choice = ", ".join(map(str, schema.get("enum", [])))
    low = next((each["minimum"] for each in kinds if "minimum" in each), None)
    high = next((each["maximum"] for each in kinds if "maximum" in each), None)
    bounds = f"{low:g} to {high:g}" if None not in (low, high) else f"from {low:g}" if low is not None else ""
    default = schema.get("default")
    return {
        "name": parameter["name"],
        "kind": choice or kind,
        "bounds": bounds,
        "default": "" if default is None else json.dumps(default).strip('"'),
        "description": parameter.get("description") or schema.get("description", ""),
    }


def _answer(api: dict[str, Any], status: str, answer: dict[str, Any]) -> dict[str, Any]:
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    whole = api["components"]["schemas"].get(name, {})
    example = whole.get("example") if status.startswith("2") else None
    return {"status": status, "description": answer["description"], "name": name, "example": example}
