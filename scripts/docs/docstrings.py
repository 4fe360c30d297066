"""A Griffe extension: renders the reStructuredText of our docstrings as Markdown."""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`(?P<short>~?)(?P<path>[\w.]+)`")


class Docstrings(Extension):
    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _markdown(obj.docstring.value, obj)


def _markdown(text: str, obj: Object) -> str:
    def reference(role: re.Match[str]) -> str:
        path = role["path"]
        text = path.rsplit(".", 1)[1] if role["short"] and "." in path else path
        # Optional: names of the compiled module have no page, and stay code.
        return (
            f'<autoref identifier="{_absolute(path, obj)}" optional><code>{text}</code></autoref>'
        )

    text = _ROLE.sub(reference, text)
    text = re.sub(r"^(\s*)::$", r"\1", text, flags=re.M)
    return re.sub(r"::$", ":", text, flags=re.M)


def _absolute(path: str, obj: Object) -> str:
    """The dotted path of a name that a docstring uses, which may be a local one."""
    if path.startswith("nameko."):
        return path
    scope: Any = obj
    while scope is not None:
        if path.split(".")[0] in scope.members:
            return f"{scope.path}.{path}"
        scope = scope.parent
    return path
