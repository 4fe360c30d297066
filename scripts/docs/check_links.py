"""Checks the links of every Markdown file of the repository, as GitHub and rustdoc render them.

Relative links and links to this repository or its site have to lead to a tracked file, and their
anchors to a heading of it. The chapters that rustdoc includes may link by reference only:
``crates/nameko/docs/links.md``, which precedes each of them, defines the same labels as links to
Rust items.
"""

import posixpath
import subprocess
import sys
from functools import cache
from pathlib import Path

from pages import Link, anchors, definitions, links

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/nameko/nameko-rust"
SITE = "https://nameko.github.io/nameko-rust/"
# The chapters of the Rust guide: symbolic links, and the definitions that rustdoc sees first.
RUST_GUIDE = ROOT / "crates" / "nameko" / "docs"
RUST_LINKS = RUST_GUIDE / "links.md"


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.splitlines()
    tracked = {path for path in listed if (ROOT / path).exists()}
    folders = {str(parent) for path in tracked for parent in Path(path).parents}
    pages = sorted(path for path in tracked if path.endswith(".md") and _is_page(path))
    in_rustdoc = {
        str(chapter.resolve().relative_to(ROOT))
        for chapter in RUST_GUIDE.glob("*.md")
        if chapter.is_symlink()
    }
    rust_labels = definitions(RUST_LINKS.read_text())

    problems = []
    for page in pages:
        markdown = (ROOT / page).read_text()
        used = list(links(markdown))
        for link in used:
            problem = _problem(page, link, tracked | folders)
            if problem:
                problems.append(f"{page}:{link.line}: {problem}")
        for label, target in definitions(markdown).items():
            if not any(target == link.target for link in used):
                problems.append(f"{page}: the definition [{label}] is not used")
            if page in in_rustdoc and _differs_in_rustdoc(target) and label not in rust_labels:
                problems.append(f"{page}: {RUST_LINKS.relative_to(ROOT)} lacks [{label}]")
        if page in in_rustdoc:
            defined = set(definitions(markdown).values())
            for link in used:
                if link.target and _differs_in_rustdoc(link.target) and link.target not in defined:
                    problems.append(f"{page}:{link.line}: rustdoc needs [{link.text}] by reference")
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


def _is_page(path: str) -> bool:
    """Whether a file is neither a link to a page, for rustdoc, nor ``RUST_LINKS``."""
    return not (ROOT / path).is_symlink() and ROOT / path != RUST_LINKS


def _differs_in_rustdoc(target: str) -> bool:
    return not target.startswith(("#", "http")) or target.startswith("https://docs.rs/nameko")


def _problem(page: str, link: Link, tracked: set[str]) -> str | None:
    if link.target is None:
        return f"[{link.text}] has no definition"
    target, _, anchor = link.target.partition("#")
    path = _repository_path(page, target)
    if path is None:
        return None
    if path not in tracked:
        return f"{link.target} does not exist"
    if anchor and path.endswith(".md") and anchor not in _anchors(path):
        return f"{path} has no heading #{anchor}"
    return None


def _repository_path(page: str, target: str) -> str | None:
    """Returns the file that a link leads to, or None if it leads out of the repository."""
    for prefix in (f"{REPOSITORY}/blob/main/", f"{REPOSITORY}/tree/main/"):
        if target.startswith(prefix):
            return target.removeprefix(prefix)
    if target.startswith(SITE):
        return "docs/{}.md".format(target.removeprefix(SITE).rstrip("/") or "index")
    if target.startswith(("https://", "http://", "mailto:")):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target)) if target else page


@cache
def _anchors(path: str) -> set[str]:
    return anchors((ROOT / path).read_text())


if __name__ == "__main__":
    sys.exit(main())
