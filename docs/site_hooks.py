"""Makes the pages of the site that are no files of docs/.

- The start page is README.md; changelog, benchmarks and the rules for contributions
  are their own files.
- The reference of the configuration comes from the comments in the code.
- A source file that a page links to gets a page, so that every link works on the site
  as it does in the repository.
"""

import ast
import dataclasses
import inspect
import os
import pathlib
import re
import typing
from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from byol_jax.config import schema

ROOT = pathlib.Path(__file__).parent.parent
# Pages of the site, and the files that they are.
PAGES = {
  "index.md": "README.md",
  "benchmarks.md": "benchmarks/README.md",
  "changelog.md": "CHANGELOG.md",
  "contributing.md": "CONTRIBUTING.md",
}
CONFIGURATION = "configuration.md"
# The pages that stand for source files.
GENERATED = {"byol_jax/config/schema.py": CONFIGURATION}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the pages."""
  texts = {page: (ROOT / path).read_text() for page, path in PAGES.items()}
  texts[CONFIGURATION] = configuration()
  for page, text in texts.items():
    files.append(File.generated(config, page, content=text))
  known = texts | {
    file.src_uri: pathlib.Path(file.abs_src_path).read_text()
    for file in files.documentation_pages()
    if file.abs_src_path
  }
  for page, text in known.items():
    for path in linked_sources(page, text):
      content = source_page(path)
      files.append(File.generated(config, page_of(path), content=content))
  return files


def on_page_markdown(
  markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
  """Makes links to files of the repository links to their pages."""
  source = page.file.src_uri

  def link(match: re.Match) -> str:
    target = page_of(repository_path(source, match[1]))
    folder = os.path.dirname(source)
    return os.path.relpath(target, folder or ".") + (match[2] or "")

  return LINK.sub(link, markdown)


def on_page_content(
  html: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
  """Makes links of notebooks to other pages work, which MkDocs leaves alone."""
  if not page.file.src_uri.endswith(".ipynb"):
    return html

  def link(match: re.Match) -> str:
    file = files.get_file_from_path(match[1])
    if file is None:
      raise PluginError(
        f"{page.file.src_uri} links to {match[1]}, which is no page"
      )
    return f'href="{file.url_relative_to(page.file)}{match[2] or ""}"'

  return re.sub(r'href="([\w/]+\.(?:md|ipynb))(#[^"]*)?"', link, html)


def repository_path(page: str, target: str) -> str:
  """Returns the path in the repository that a page's link leads to."""
  own = PAGES.get(page, f"docs/{page}")
  return os.path.normpath(os.path.join(os.path.dirname(own), target))


def page_of(path: str) -> str:
  """Returns the page of the site that shows a file of the repository."""
  for page, own in PAGES.items():
    if path == own:
      return page
  if path.startswith("docs/"):
    return path.removeprefix("docs/")
  return GENERATED.get(path, f"source/{path}.md")


def linked_sources(page: str, text: str) -> Iterator[str]:
  """Yields the source files and folders that a page links to."""
  for match in LINK.finditer(text):
    path = repository_path(page, match[1])
    if page_of(path) == f"source/{path}.md":
      yield path


def source_page(path: str) -> str:
  """Returns a page with a source file, or with the files of a folder."""
  place = ROOT / path
  if place.is_file():
    language = {".py": "python", ".sh": "bash"}.get(place.suffix, "text")
    return f"# {path}\n\n````{language}\n{place.read_text()}````\n"
  names = sorted(str(x.relative_to(ROOT)) for x in place.rglob("*.py"))
  parts = [
    f"## {name}\n\n````python\n{(ROOT / name).read_text()}````\n"
    for name in names
  ]
  return "\n".join([f"# {path}\n", *parts])


def configuration() -> str:
  """Returns the reference of all keys, with a table for each section."""
  lines = [
    "# Configuration",
    "",
    "Every key with its type, its default and its source: [P] is Grill et al. 2020",
    "(arXiv 2006.07733v3), [C] is deepmind-research/byol. Give a key on the command",
    "line as `--config.KEY=VALUE`.",
    "",
  ]
  return "\n".join([*lines, *section("", schema.Config())])


def section(prefix: str, values: typing.Any) -> Iterator[str]:
  """Yields the lines of a section of the configuration and those below it."""
  kinds = typing.get_type_hints(type(values))
  fields = dataclasses.fields(values)
  inner = [x.name for x in fields if dataclasses.is_dataclass(kinds[x.name])]
  if prefix:
    yield f"## {prefix.rstrip('.')}\n"
    yield f"{inspect.getdoc(type(values))}\n"
  if rows := list(table(prefix, values, kinds, inner)):
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    yield from rows
    yield ""
  for name in inner:
    yield from section(f"{prefix}{name}.", getattr(values, name))


def table(
  prefix: str, values: typing.Any, kinds: dict, inner: list[str]
) -> Iterator[str]:
  """Yields a row for the keys that share a comment."""
  for names, comment in commented_fields(type(values)):
    names = [name for name in names if name not in inner]
    if not names:
      continue
    columns = (
      [f"`{prefix}{name}`" for name in names],
      [f"`{type_name(kinds[name])}`" for name in names],
      [f"`{getattr(values, name)!r}`" for name in names],
      [comment],
    )
    cells = ("<br>".join(cell).replace("|", "\\|") for cell in columns)
    yield f"| {' | '.join(cells)} |"


def type_name(kind: typing.Any) -> str:
  """Returns a type as the code writes it."""
  return (
    kind.__name__
    if isinstance(kind, type) and not typing.get_args(kind)
    else str(kind)
  )


def commented_fields(cls: type) -> Iterator[tuple[list[str], str]]:
  """Yields fields and their comment, those of base classes first.

  A comment above fields is about all that follow, up to one with a comment of its
  own; a comment behind a field is about this one.
  """
  for owner in reversed(cls.__mro__[:-1]):
    source = inspect.getsource(owner)
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    shared: list[str] | None = None
    rows: list[tuple[list[str], str]] = []
    for node in definition.body:
      if not isinstance(node, ast.AnnAssign):
        continue
      first = node.lineno - 1
      while lines[first - 1].lstrip().startswith("#"):
        first -= 1
      comments = [
        line.partition("#")[2].strip()
        for line in lines[first : node.end_lineno]
        if "#" in line
      ]
      above = first < node.lineno - 1
      if not comments and shared is not None:
        shared.append(node.target.id)
        continue
      names = [node.target.id]
      shared = names if above else None
      rows.append((names, " ".join(comments)))
    yield from rows
