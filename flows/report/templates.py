"""The templates of the pages that `flows` writes; all text in them is escaped."""

from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parents[1] / "templates"


def render_template(name: str, **values: Any) -> str:
    """The page of a template of `flows/templates`; a value that the template names and that is missing is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template(name).render(**values)
