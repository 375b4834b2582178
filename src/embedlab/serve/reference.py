"""The API's reference as one page of plain HTML, made from its OpenAPI description, without scripts or other hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, h3 { font-family: ui-monospace, monospace }
h3 { margin: 2rem 0 .25rem; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-top: 1px solid #8884 }
"""


def reference_style() -> str:
    """Return the style sheet of the page."""
    return _STYLE


def reference_page(openapi: Mapping[str, Any], style_url: str) -> str:
    """Write the page.

    Args:
        openapi: OpenAPI 3.1 description.
        style_url: Where the style sheet is.

    Returns:
        A whole HTML document.
    """
    title = escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    schemas: Mapping[str, Any] = openapi.get("components", {}).get("schemas", {})
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f'<title>{title}</title><link rel="stylesheet" href="{escape(style_url)}"></head><body>',
        f"<h1>{title}</h1><p>{escape(openapi['info'].get('description', ''))}</p>",
        '<p>For machines: <a href="/openapi.json">/openapi.json</a></p>',
    ]
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            lines += _operation(f"{method.upper()} {path}", operation)
    lines.append("<h2>Shapes</h2>")
    for name, schema in sorted(schemas.items()):
        lines.append(f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p>')
        needed = set(schema.get("required", ()))
        lines += _table(
            (field, _kind(part), "" if field in needed else "may be left out", part.get("description", ""))
            for field, part in schema.get("properties", {}).items()
        )
    lines.append("</body></html>")
    return "\n".join(lines)


def _operation(title: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h3>{escape(title)}</h3><p>{escape(operation.get('summary', ''))}</p>"
    yield from _table(
        (part["name"], _kind(part["schema"]), part["in"] + ("" if part.get("required") else ", may be left out"), "")
        for part in operation.get("parameters", ())
    )
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body ({escape(kind)}): {_kind(content.get('schema', {}))}</p>"
    for status, response in operation.get("responses", {}).items():
        shapes = " or ".join(_kind(content.get("schema", {})) for content in response.get("content", {}).values())
        yield f"<p>{escape(status)}: {shapes or escape(response.get('description', ''))}</p>"


def _table(rows: Iterator[tuple[str, str, str, str]]) -> Iterator[str]:
    """Rows of name, kind (HTML already), place and remark."""
    body = [
        f"<tr><td><code>{escape(name)}</code></td><td>{kind}</td><td>{escape(place)} {escape(remark)}</td></tr>"
        for name, kind, place, remark in rows
    ]
    if body:
        yield "<table>" + "".join(body) + "</table>"


def _kind(schema: Mapping[str, Any]) -> str:
    """Say in HTML what a value may be."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return escape(" | ".join(map(repr, schema.get("enum", [schema.get("const")]))))
    if schema.get("type") == "array":
        inner = (
            _kind(schema.get("items", {}))
            if "items" in schema
            else " , ".join(map(_kind, schema.get("prefixItems", ())))
        )
        return f"list of {inner}"
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "from"),
            ("maximum", "to"),
            ("minLength", "from length"),
            ("maxLength", "to length"),
        )
        if key in schema
    ]
    kind = {"string": "text", "number": "number", "integer": "whole number", "boolean": "true or false", "null": "null"}
    return escape(" ".join([kind.get(str(schema.get("type")), str(schema.get("type", "anything"))), *bounds]))
