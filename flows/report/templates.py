"""Pages that `flows` writes.

- `render_template`: a page from a template; all text in it is escaped
- `write_html`: the file of an option `--html`
"""

from pathlib import Path
from typing import Any

from data_schemas.errors import EnvironmentProblem
from infra.store.local_writes import replace_file

TEMPLATES = Path(__file__).parents[1] / "templates"


def render_template(name: str, **values: Any) -> str:
    """The page of a template of `flows/templates`; a value that the template names and that is missing is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template(name).render(**values)


def write_html(path: str, page: str) -> None:
    """Write a page to a file that the user names; it is whole or not there.

    Raises:
        EnvironmentProblem: if it cannot be written.
    """
    try:
        replace_file(Path(path), page.encode())
    except (OSError, ValueError) as error:  # ValueError: a path without a name, such as "."
        reason = getattr(error, "strerror", None) or error
        raise EnvironmentProblem(
            f"--html {path} cannot be written ({reason}); name a file in a folder that exists"
        ) from error
