"""The samples of the documentation: a page's Python samples run as one program, in order.

A sample that cannot run here is marked in its info string, ```python no_run, and its page is
listed in ``NOT_RUN`` with the reason. rustdoc runs the Rust samples, of the pages that are chapters
of ``nameko::guide``. An excerpt, ```python examples/shop/stock.py, is a part of that file, which
has tests of its own.
"""

import importlib.util
import re
import sys
import textwrap
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUST_GUIDE = ROOT / "crates" / "nameko"

NOT_RUN = {
    "guides/transactions.md": "its asyncio driver needs PostgreSQL, see python/tests/contrib",
    "migration/extensions.md": "it needs nameko-sentry, which has tests in python/tests/community",
}


def load(path):
    spec = importlib.util.spec_from_file_location("documentation_pages", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pages = load(ROOT / "scripts" / "docs" / "pages.py")
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}


def blocks(page, language):
    return [fence for fence in pages.fences(PAGES[page]) if fence.language == language]


def samples(page, language):
    return [fence for fence in blocks(page, language) if fence.source is None]


@pytest.mark.parametrize("page", [page for page in PAGES if samples(page, "python")])
def test_python_samples_run(page, monkeypatch):
    module = types.ModuleType("documentation_" + re.sub(r"\W", "_", page))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for sample in samples(page, "python"):
        # On the lines that the sample has on its page, for tracebacks.
        source = "\n" * (sample.first + 1) + sample.code
        code = compile(source, str(DOCS / page), "exec")
        if "no_run" not in sample.words:
            exec(code, module.__dict__)


def test_samples_that_do_not_run_have_a_reason():
    marked = {
        page
        for page in PAGES
        if any("no_run" in sample.words for sample in samples(page, "python"))
    }
    assert marked == NOT_RUN.keys()


def test_no_sample_hides_behind_another_info_string():
    allowed = {("python",), ("python", "no_run"), ("rust",), ("rust", "no_run")}
    for page, text in PAGES.items():
        for fence in pages.fences(text):
            if re.match(r"py|rs|rust", fence.language, re.IGNORECASE):
                words = [word for word in fence.words if word != fence.source]
                assert tuple(words) in allowed, f"{page}:{fence.first + 1}"
        assert text.count("```python") == len(blocks(page, "python")), page
        assert text.count("```rust") == len(blocks(page, "rust")), page


@pytest.mark.parametrize("page", PAGES)
def test_excerpts_are_parts_of_their_files(page):
    for fence in pages.fences(PAGES[page]):
        if fence.source is not None:
            found = contains((ROOT / fence.source).read_text(), fence.code)
            assert found, f"{page}:{fence.first + 1} differs from {fence.source}"


def contains(text, excerpt):
    """Whether adjacent lines of a text are the excerpt, apart from a common indentation."""
    lines = text.splitlines(keepends=True)
    length = excerpt.count("\n")
    parts = ("".join(lines[first : first + length]) for first in range(len(lines)))
    return any(textwrap.dedent(part) == excerpt for part in parts)


def test_an_excerpt_may_have_another_indentation_but_no_other_line():
    text = "class A:\n    def b(self):\n        return 1\n"
    assert contains(text, "def b(self):\n    return 1\n")
    assert not contains(text, "def b(self):\nreturn 1\n")
    assert not contains(text, "def b(self):\n    return\n")


def test_rust_samples_are_tested_by_rustdoc():
    guide = (RUST_GUIDE / "src" / "guide.rs").read_text()
    chapters = re.findall(r"^chapter!\((?:\s*#\[.*\])?\s*(\w+)\s*\);", guide, re.M)
    included = {str((RUST_GUIDE / "docs" / f"{name}.md").resolve()) for name in chapters}
    for page in PAGES:
        if samples(page, "rust"):
            assert str(DOCS / page) in included, f"{page} is not a chapter of nameko::guide"


PAGE = """\
# Title with `code`

See [`Foo`], [the guide][guide] and [a page](page.md#part), not `[guide]`.

## Part

```python
[guide]
```

## Part

[`Foo`]: https://docs.rs/nameko/latest/nameko/struct.Foo.html
[guide]: guide.md
"""


def test_links_are_found_in_prose_only():
    found = {link.text: link.target for link in pages.links(PAGE)}
    assert found == {
        "`Foo`": "https://docs.rs/nameko/latest/nameko/struct.Foo.html",
        "the guide": "guide.md",
        "a page": "page.md#part",
    }


def test_reference_links_become_inline_links():
    page = pages.inline_references(PAGE)
    assert "See [`Foo`](https://docs.rs/nameko/latest/nameko/struct.Foo.html), " in page
    assert "[the guide](guide.md) and [a page](page.md#part), not `[guide]`." in page
    assert "```python\n[guide]\n```" in page


def test_anchors_are_those_of_github():
    assert pages.anchors(PAGE) == {"title-with-code", "part", "part-1"}
    assert pages.slug("What can't be read?") == "what-cant-be-read"


def test_an_unclosed_fence_is_an_error():
    with pytest.raises(ValueError, match="line 3: the fenced block is not closed"):
        list(pages.fences("text\n\n```python\nx = 1\n"))
