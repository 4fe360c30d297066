"""MkDocs hooks: turn the plain Markdown of ``docs/`` into the site's pages.

* Adjacent samples in Python and Rust become content tabs.
* Lines that rustdoc hides are removed from Rust samples.
* Links to docs.rs lead to the API reference on the site, links to files outside of ``docs/`` to the
  repository.
* A page that loads something from another host fails the build: the site works offline.
"""

import posixpath
import re
from itertools import pairwise
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pages import Fence, fences, inline_references, map_prose

ROOT = Path(__file__).parents[2]
RUSTDOC = ROOT / "target" / "doc"
# Where the site has the output of rustdoc, and where the sources link to.
RUST_API = "api/rust"
DOCS_RS = re.compile(r"https://docs\.rs/nameko[a-z-]*/latest/")

_REMOTE = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=\"https?:[^>]*>"
    r"|<link\b[^>]*\brel=\"(?:stylesheet|preconnect|preload)\"[^>]*\bhref=\"https?:[^>]*>"
)

# The tabs, in their order. A block belongs to one by its language, or by a word behind it as in
# ```console Python
TABS = ("Python", "Rust")
_TAB_OF_LANGUAGE = {"python": "Python", "rust": "Rust"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the output of rustdoc, so that links into it are checked as all others are."""
    for path in sorted(RUSTDOC.rglob("*")):
        # MkDocs would render the font licences, which are Markdown, as pages.
        if path.is_file() and path.suffix != ".md":
            uri = f"{RUST_API}/{path.relative_to(RUSTDOC).as_posix()}"
            excluded = InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, uri, abs_src_path=str(path), inclusion=excluded))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uri = page.file.src_uri
    repository = config.repo_url or ""
    markdown = inline_references(markdown)
    markdown = map_prose(markdown, lambda text: _site_links(text, uri, repository))
    return _tabbed(markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    remote = _REMOTE.search(output)
    if remote:
        raise PluginError(f"{page.file.src_uri} loads from another host: {remote[0]}")


def _site_links(text: str, uri: str, repository: str) -> str:
    """Rewrites the targets of links that differ between the repository and the site."""
    folder = posixpath.dirname(uri)

    def rewrite(link: re.Match[str]) -> str:
        target = link[1]
        if DOCS_RS.match(target):
            path = DOCS_RS.sub("", target)
            _check_anchor(uri, path)
            target = posixpath.relpath(f"{RUST_API}/{path}", folder or ".")
        elif "://" not in target:
            path = posixpath.normpath(posixpath.join("docs", folder, target))
            if not target.startswith("#") and not path.startswith("docs/"):
                kind = "tree" if (ROOT / path).is_dir() else "blob"
                target = f"{repository}/{kind}/main/{path}"
        return f"]({target})"

    return re.sub(r"\]\(([^()\s]+)\)", rewrite, text)


def _check_anchor(uri: str, target: str) -> None:
    """Checks the anchor of a link into rustdoc. MkDocs itself checks that the page exists."""
    path, _, anchor = target.partition("#")
    page = RUSTDOC / path
    if anchor and page.exists() and f'id="{anchor}"' not in page.read_text():
        raise PluginError(f"{uri}: {target} has no such item")


def _tabbed(markdown: str) -> str:
    """Renders the fenced blocks: runs of adjacent samples in several languages as tabs."""
    lines = markdown.split("\n")
    output: list[str] = []
    position = 0
    for group in _adjacent(lines, list(fences(markdown))):
        output += lines[position : group[0].first]
        if len(group) == 1:
            output += _block(group[0])
        else:
            for fence in sorted(group, key=lambda fence: TABS.index(_tab(fence) or "")):
                output += [f'{fence.indent}=== "{_tab(fence)}"', ""]
                output += [f"    {line}".rstrip() for line in _block(fence)] + [""]
        position = group[-1].last + 1
    return "\n".join(output + lines[position:])


def _adjacent(lines: list[str], blocks: list[Fence]) -> list[list[Fence]]:
    """Groups blocks of different tabs with nothing but blank lines between them."""
    groups = [blocks[:1]] if blocks else []
    for previous, fence in pairwise(blocks):
        tabs = [_tab(block) for block in groups[-1]]
        blank = not any(line.strip() for line in lines[previous.last + 1 : fence.first])
        if blank and None not in tabs and _tab(fence) not in (None, *tabs):
            groups[-1].append(fence)
        else:
            groups.append([fence])
    return groups


def _tab(fence: Fence) -> str | None:
    named = next((word for word in fence.words[1:] if word in TABS), None)
    return named or _TAB_OF_LANGUAGE.get(fence.language)


def _block(fence: Fence) -> list[str]:
    """A fenced block as the site shows it."""
    code = _shown(fence.code) if fence.language == "rust" else fence.code
    mark = "````" if "```" in code else "```"
    return [fence.indent + line for line in [f"{mark}{fence.language}", *code.splitlines(), mark]]


def _shown(code: str) -> str:
    """Removes the lines that rustdoc hides, and the blank lines that they leave at the ends."""
    shown = [line for line in code.splitlines() if not re.match(r"\s*#( |$)", line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(shown)).strip("\n")
