"""YAML of users: `load_yaml`, which refuses a mapping that sets a key twice.

PyYAML keeps the last of them without a word (yaml/pyyaml#165), so that a setting above would have no effect.
"""

from typing import Any

import yaml

MERGE = "tag:yaml.org,2002:merge"


def load_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: if it is not YAML, sets a key twice, or holds what cannot be a value, such as a 13th month.
    """
    try:
        return yaml.load(text, _UniqueKeys)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error


class _UniqueKeys(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        """The node of a mapping, as written: `<<` is not yet replaced by what it merges, which may be set again."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise yaml.YAMLError(f"{key.value} is set twice, in lines {lines[name]} and {line}; keep one of them")
            lines[name] = line
        return node
