"""The Python of the guide, run as it stands. A page's samples are one program, with its own
assertions."""

import pathlib
import re
import sys
import types

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
# A sample that is not to be run says so in the line above it: ```python no_run
SAMPLES = re.compile(r"^```python( no_run)?\n(.*?)^```", re.M | re.S)


def samples(page):
    """The samples as one program, on the lines that they have on the page."""
    text = page.read_text()
    for sample in SAMPLES.finditer(text):
        source = "\n" * text.count("\n", 0, sample.start(2)) + sample[2]
        code = compile(source, str(page), "exec")
        if not sample[1]:
            yield code


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if SAMPLES.search(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_samples_work(page, monkeypatch):
    module = types.ModuleType("guide_" + page.stem)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for code in samples(page):
        exec(code, module.__dict__)
