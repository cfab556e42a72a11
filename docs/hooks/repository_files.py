"""Lets pages link to files of the repository outside of docs/, by relative paths that lead there on GitHub too.

Such a file becomes a part of the site, below repository/: Markdown is a page, whose own links are followed likewise,
everything else is copied as it is.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

_TARGET = re.compile(r"\]\(([^)\s#:]+)")  # of a link or a picture, without its anchor
# Files outside of docs/ that a page of it includes.
_INCLUDED = {"../runtime/SPEC.md": "reference/specification.md"}


class _RepositoryFiles(Files):
    """Files of the site, found by their paths from docs/; pages outside of docs/ name those in it by another one."""

    def get_file_from_path(self, path: str) -> File | None:
        """The file with this path from docs/; None if there is none."""
        return super().get_file_from_path(_INCLUDED.get(path, path.removeprefix("../docs/")))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to, and what these link to."""
    found = _RepositoryFiles(files)
    waiting = list(found.documentation_pages())
    while waiting:
        waiting = [file for page in waiting for file in _add_linked(page, found, config)]
    return found


def _add_linked(page: File, files: Files, config: MkDocsConfig) -> Iterator[File]:
    """Add the files outside of docs/ that a page links to; yields those that are pages."""
    root = Path(config.docs_dir).parent
    for target in _TARGET.findall(page.content_string):
        path = Path(config.docs_dir, page.src_uri).parent.joinpath(target).resolve()
        if not path.is_file() or not path.is_relative_to(root):
            continue
        name = path.relative_to(root).as_posix()
        if files.get_file_from_path(f"../{name}") is None:
            file = _copy_of(name, config)
            files.append(file)
            if file.is_documentation_page():
                yield file


def _copy_of(name: str, config: MkDocsConfig) -> File:
    """A file of the repository as a file of the site, under the path from docs/, by which MkDocs looks for it."""
    where = (config.docs_dir, config.site_dir, config.use_directory_urls)
    place = File(f"repository/{name}", *where)
    inclusion = InclusionLevel.NOT_IN_NAV if place.is_documentation_page() else InclusionLevel.INCLUDED
    return File(f"../{name}", *where, dest_uri=place.dest_uri, inclusion=inclusion)
