"""Reads the Markdown of the documentation: fenced blocks, links and headings.

The sources are plain Markdown that GitHub, rustdoc and MkDocs render alike. The site's hooks, the
link check and the tests of the samples read them with this one parser.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^(?P<indent>[ ]*)(?P<mark>`{3,}|~{3,})[ ]*(?P<info>[^`\n]*)$")
_DEFINITION = re.compile(r"^ {0,3}\[(?P<label>[^\]\n]+)\]:[ ]+(?P<target>\S+)[ ]*$", re.M)
_INLINE_LINK = re.compile(r"\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\)")
_REFERENCE = re.compile(r"\[(?P<text>[^\[\]]+)\](?:\[(?P<label>[^\[\]]*)\])?(?![(\[])")
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.S)
_HEADING = re.compile(r"^#{1,6} +(?P<text>.+?)(?: +#+)?$", re.M)
_EXPLICIT_ANCHOR = re.compile(r"<a (?:id|name)=\"(?P<anchor>[^\"]+)\"")


@dataclass(frozen=True)
class Fence:
    """A fenced block: ``first`` and ``last`` are the indices of its two fence lines."""

    first: int
    last: int
    indent: str
    info: str
    code: str

    @property
    def words(self) -> list[str]:
        """The info string's words: ``rust,no_run`` has two, as has ``console Python``."""
        return re.split(r"[\s,]+", self.info.strip())

    @property
    def language(self) -> str:
        return self.words[0]

    @property
    def source(self) -> str | None:
        """The file that the block is an excerpt of: ``python examples/shop/stock.py`` names it."""
        return next((word for word in self.words[1:] if "/" in word), None)


@dataclass(frozen=True)
class Link:
    """A link of a page; ``target`` is None where a reference has no definition."""

    line: int
    text: str
    target: str | None


def fences(markdown: str) -> Iterator[Fence]:
    """Yields the fenced blocks, in order.

    Raises ValueError if a block is not closed.
    """
    lines = markdown.split("\n")
    first = 0
    while first < len(lines):
        opening = _FENCE.match(lines[first])
        if opening is None:
            first += 1
            continue
        closing = re.compile(rf"^ *{opening['mark'][0]}{{{len(opening['mark'])},}} *$")
        for last in range(first + 1, len(lines)):
            if closing.match(lines[last]):
                break
        else:
            raise ValueError(f"line {first + 1}: the fenced block is not closed")
        indent = opening["indent"]
        code = "".join(line.removeprefix(indent) + "\n" for line in lines[first + 1 : last])
        yield Fence(first, last, indent, opening["info"], code)
        first = last + 1


def prose(markdown: str) -> str:
    """Returns the page with its fenced blocks blanked out, on the same lines."""
    lines = markdown.split("\n")
    for fence in fences(markdown):
        lines[fence.first : fence.last + 1] = [""] * (fence.last + 1 - fence.first)
    return "\n".join(lines)


def definitions(markdown: str) -> dict[str, str]:
    """Returns the targets of the page's reference definitions by their normalized labels."""
    found = _DEFINITION.finditer(prose(markdown))
    return {_normalize(definition["label"]): definition["target"] for definition in found}


def links(markdown: str) -> Iterator[Link]:
    """Yields every link of the page, inline or by reference."""
    targets = definitions(markdown)
    text = _DEFINITION.sub("", prose(markdown))

    def line(position: int) -> int:
        return text.count("\n", 0, position) + 1

    for link in _INLINE_LINK.finditer(_without_code(text)):
        yield Link(line(link.start()), text[slice(*link.span("text"))], link["target"])
    for link, words, label in _references(text):
        if label in targets or link["label"] is not None:
            yield Link(line(link.start()), words, targets.get(label))


def inline_references(markdown: str) -> str:
    """Returns the page with its reference links written as inline links.

    Python-Markdown does not resolve references whose label is a code span.
    """
    targets = definitions(markdown)

    def inline(text: str) -> str:
        text = _DEFINITION.sub("", text)
        parts, position = [], 0
        for link, words, label in _references(text):
            if label in targets:
                parts += [text[position : link.start()], f"[{words}]({targets[label]})"]
                position = link.end()
        return "".join(parts) + text[position:]

    return map_prose(markdown, inline)


def _references(text: str) -> Iterator[tuple[re.Match[str], str, str]]:
    """Yields what may be a reference link: the match, its text and its normalized label."""
    visible = _INLINE_LINK.sub(_blank, _without_code(text))
    for link in _REFERENCE.finditer(visible):
        words = text[slice(*link.span("text"))]
        label = text[slice(*link.span("label"))] if link["label"] else words
        yield link, words, _normalize(label)


def _without_code(text: str) -> str:
    return _CODE_SPAN.sub(_blank, text)


def map_prose(markdown: str, function) -> str:
    """Applies a function to the text before, between and after the fenced blocks."""
    lines = markdown.split("\n")
    parts, position = [], 0
    for fence in fences(markdown):
        parts.append(function("\n".join(lines[position : fence.first])))
        parts.append("\n".join(lines[fence.first : fence.last + 1]))
        position = fence.last + 1
    parts.append(function("\n".join(lines[position:])))
    return "\n".join(parts)


def anchors(markdown: str) -> set[str]:
    """Returns the anchors that GitHub gives the page's headings, and the explicit ones."""
    text = prose(markdown)
    found: set[str] = {link["anchor"] for link in _EXPLICIT_ANCHOR.finditer(text)}
    for heading in _HEADING.finditer(text):
        anchor = unique = slug(heading["text"])
        number = 0
        while unique in found:
            number += 1
            unique = f"{anchor}-{number}"
        found.add(unique)
    return found


def slug(heading: str) -> str:
    """Returns the anchor of a heading, by GitHub's rule."""
    text = re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def _normalize(label: str) -> str:
    return " ".join(label.split()).lower()


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", "\0", match[0])
