"""The code that the pages of docs show."""

import re
import textwrap


def code(page: str) -> list[str]:
  """Returns the indented blocks of the text of a page, without the indentation."""
  blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page, re.M)
  return [textwrap.dedent(block) for block in blocks]
