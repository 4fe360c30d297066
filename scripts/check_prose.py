"""Checks that comments, docstrings and Markdown read like technical prose.

Counts two symptoms of vague writing per 1,000 words and fails if an area exceeds the limit:
free relative clauses (`what is sent`) and `tell` or `hear` used of programs. Fails on lines and
table cells that are too wide, too. The other rules of docs/contributing/style.md need a reader.

Usage: python3 scripts/check_prose.py [PATH...]. Without a path, every area is measured.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docs import pages

ROOT = Path(__file__).resolve().parent.parent
# Matches per 1,000 words.
LIMIT = 3.0
# Lines listed for an area above the limit.
MAX_LISTED_LINES = 20
MAX_LINE_WIDTH = 100
MAX_CELL_WIDTH = 120

# Git path specifications, measured together. Small folders share an area, because one match
# outweighs the limit in a text of 300 words.
AREAS = {
    "nameko": ["crates/nameko"],
    "nameko-amqp": ["crates/nameko-amqp"],
    "nameko-broker": ["crates/nameko-broker"],
    "nameko-macros": ["crates/nameko-macros"],
    "nameko-py": ["crates/nameko-py"],
    "nameko-sqlx": ["crates/nameko-sqlx"],
    "python/nameko": ["python/nameko"],
    "python/tests": ["python/tests"],
    "docs": ["docs"],
    "examples": ["examples"],
    "repository": [":(glob)*.md", ".github", "benchmarks", "scripts"],
}

WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
SYMPTOM = re.compile(
    r"\b(what|whatever|whoever|whom|whose|whichever"
    r"|tell|tells|told|telling|hear|hears|heard|hearing)\b",
    re.IGNORECASE,
)
RUST_COMMENT = re.compile(r"(?:^\s*|\s)//[/!]?(?=\s|$)(.*)")


@dataclass
class Line:
    """A line of prose in a file."""

    path: str
    number: int
    text: str
    # Of the whole line, with indentation and code before a comment.
    width: int

    def matches(self) -> int:
        return len(SYMPTOM.findall(self.text))

    def is_too_wide(self) -> bool:
        text = self.text.strip()
        if text.startswith("|"):
            return any(len(cell.strip()) > MAX_CELL_WIDTH for cell in text.split("|"))
        # A single word, such as a URL, cannot be wrapped.
        return self.width > MAX_LINE_WIDTH and len(text.split()) > 2

    def __str__(self) -> str:
        return f"  {self.path}:{self.number}: {self.text.strip()}\n"


@dataclass
class Count:
    """Words and matching lines of one area."""

    words: int = 0
    matches: int = 0
    lines: list[Line] = field(default_factory=list)
    wide_lines: list[Line] = field(default_factory=list)

    def add(self, line: Line) -> None:
        self.words += len(WORD.findall(line.text))
        if line.is_too_wide():
            self.wide_lines.append(line)
        if found := line.matches():
            self.matches += found
            self.lines.append(line)

    def rate(self) -> float:
        return 1000 * self.matches / max(self.words, 1)


def main(paths: list[str]) -> int:
    areas = {path: [path] for path in paths} or AREAS
    vague, wide = False, False
    for name, specifications in areas.items():
        count = measure(specifications)
        sys.stdout.write(f"{name:16} {count.words:6} words {count.rate():5.1f} per 1,000\n")
        if count.rate() > LIMIT:
            vague = True
            worst = sorted(count.lines, key=Line.matches, reverse=True)
            sys.stdout.writelines(map(str, worst[:MAX_LISTED_LINES]))
        if count.wide_lines:
            wide = True
            sys.stdout.write(f"{name:16} {len(count.wide_lines)} lines or table cells too wide\n")
            sys.stdout.writelines(map(str, count.wide_lines[:MAX_LISTED_LINES]))
    if vague:
        sys.stdout.write(
            f"error: more than {LIMIT:g} free relative clauses and tell/hear per 1,000 words: "
            "rewrite the sentences listed, see docs/contributing/style.md\n"
        )
    if wide:
        sys.stdout.write(
            f"error: comments and Markdown wrap at {MAX_LINE_WIDTH} columns, "
            f"and table cells have at most {MAX_CELL_WIDTH} characters\n"
        )
    return int(vague or wide)


def measure(specifications: list[str]) -> Count:
    count = Count()
    for path in tracked_files(specifications):
        for line in prose(path):
            count.add(line)
    return count


def tracked_files(specifications: list[str]) -> list[str]:
    command = ["git", "ls-files", "-z", "--", *specifications]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for path in listing.stdout.split("\0") if (ROOT / path).is_file()]


def prose(path: str) -> Iterator[Line]:
    """Yields the prose of a file: comments and docstrings of code, text of Markdown."""
    readers = {".rs": rust, ".py": python, ".pyi": python, ".md": markdown}
    reader = readers.get(Path(path).suffix)
    # A link is measured with its target.
    if reader is not None and not (ROOT / path).is_symlink():
        source = (ROOT / path).read_text()
        widths = [len(line) for line in source.splitlines()]
        for number, text in reader(source):
            yield Line(path, number, text, widths[number - 1])


def rust(source: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(source.splitlines(), 1):
        if match := RUST_COMMENT.search(line):
            yield number, match.group(1)


def python(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string[1:]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and (docstring := ast.get_docstring(node, clean=False)):
            first = node.body[0].lineno
            yield from enumerate(docstring.splitlines(), first)


def markdown(source: str) -> Iterator[tuple[int, str]]:
    return enumerate(pages.prose(source).splitlines(), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
