"""The frame of `report.html`: one file with its style, which loads nothing else."""

import pathlib
import string

from byol_jax.reporting import markup, style
from byol_jax.runtime import files

FILE = "report.html"

# The colours c0 to c9 tell curves and classes apart on light and on dark ground; they
# are Tableau's ten, the grey one exchanged for a yellow.
_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #fdfdfc; --ink: #1d1f21; --soft: #5c6166; --rule: #d9dadb;
  --panel: #f3f4f4; --good: #2a8f4f; --bad: #c0392b; --accent: #1f5fa8;
  --blue: #4e79a7; --brown: #9c755f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16181a; --ink: #e6e7e8; --soft: #a0a5aa; --rule: #3a3e42;
    --panel: #212427; --good: #4fbf7a; --bad: #f0705f; --accent: #6aa7ea;
    --blue: #6f9fd4; --brown: #b8917b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { margin: .25rem 0 .5rem; max-width: 46rem; }
.note { color: var(--soft); font-size: .875rem; }
.verdict { font-size: 1.25rem; font-weight: 600; }
summary { cursor: pointer; }
.scroll { overflow-x: auto; max-width: 100%; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid var(--rule); overflow-wrap: normal; }
td { overflow-wrap: anywhere; min-width: 4.5rem; }
thead th { color: var(--soft); font-weight: 500; }
tbody th { font-weight: 500; }
.numbers td { font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.charts { display: grid; gap: 1rem 1.5rem; margin: .75rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figcaption { font-size: .875rem; line-height: 1.35; margin-bottom: .25rem; }
.key { display: inline-block; margin-left: .6rem; color: var(--soft);
  font-size: .875rem; }
.key i { display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .3em; background: var(--c); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; }
.raw { opacity: .3; stroke-width: 1; }
.again { stroke-dasharray: 5 3; }
.dot, .point { fill: var(--c); }
.c0 { --c: var(--blue); } .c1 { --c: #f28e2b; } .c2 { --c: #e15759; }
.c3 { --c: #3fa39b; } .c4 { --c: #59a14f; } .c5 { --c: #c9a40f; }
.c6 { --c: #b07aa1; } .c7 { --c: #e77f95; } .c8 { --c: var(--brown); }
.c9 { --c: #4aa8d8; } .other { --c: #9a9da0; }
.triples { display: grid; gap: 1rem 1.5rem; max-width: 60rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.triple { display: grid; grid-template-columns: repeat(3, 1fr); gap: 0 .4rem;
  color: var(--soft); font-size: .8rem; break-inside: avoid; }
.triple img, .neighbours img { width: 100%; height: auto; display: block;
  border-radius: 3px; }
.triple img { aspect-ratio: 1; object-fit: contain; background: var(--panel); }
.pixelated { image-rendering: pixelated; }
.queries { display: grid; gap: 1rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.neighbours { display: grid; gap: .25rem; align-items: start; max-width: 32rem;
  grid-template-columns: repeat(var(--columns), minmax(0, 1fr));
  break-inside: avoid; }
.name { color: var(--soft); font-size: .75rem; line-height: 1.2; overflow: hidden;
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; }
.tile { border: 2px solid transparent; }
.same { border-color: var(--good); } .differs { border: 2px dashed var(--bad); }
.map { position: relative; max-width: 40rem; touch-action: pan-y; }
.map svg { background: var(--panel); border-radius: 4px; }
.point { stroke: var(--ground); stroke-width: .6; }
.point:hover { stroke: var(--ink); stroke-width: 2; }
.tip { position: absolute; padding: .35rem; pointer-events: none;
  background: var(--ground); border: 1px solid var(--rule); border-radius: 4px;
  font-size: .8rem; text-align: center; width: 7.5rem; }
.tip[hidden] { display: none; }
.tip img { display: block; object-fit: none; object-position: 0 0; zoom: 3;
  margin: 0 auto 1px; image-rendering: pixelated; }
.legend { margin: .5rem 0 0 -.6rem; max-width: 40rem; }
.bars { display: grid; gap: .2rem .75rem; max-width: 40rem; align-items: center;
  grid-template-columns: fit-content(45%) minmax(3rem, 1fr) max-content;
  font-size: .875rem; font-variant-numeric: tabular-nums; }
.bar { background: var(--panel); height: .8rem; border-radius: 2px; }
.bar i { display: block; height: 100%; background: var(--accent);
  border-radius: 2px; }
.confusion td { min-width: 1.9rem; padding: .25rem 0; text-align: center;
  border: 1px solid var(--ground); overflow-wrap: normal; }
.confusion thead th { text-align: center; vertical-align: bottom; }
.confusion .long span { writing-mode: vertical-rl; max-height: 8rem; }
.confusion .right { background: color-mix(in srgb, var(--good)
  calc(var(--part) * 45%), var(--panel)); }
.confusion .wrong { background: color-mix(in srgb, var(--bad)
  calc(var(--part) * 75%), var(--panel)); }
@media print {
  :root { color-scheme: light; --ground: #fff; --ink: #000; --soft: #444;
    --rule: #bbb; --panel: #f0f0f0; --good: #2a8f4f; --bad: #c0392b;
    --accent: #1f5fa8; --blue: #4e79a7; --brown: #9c755f; }
  * { print-color-adjust: exact; }
  body { font-size: 11pt; max-width: none; }
  .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; }
}
"""

_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
 img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$body</main>
</body>
</html>
""")


def write(folder: pathlib.Path, title: str, body: str) -> pathlib.Path:
  """Writes `report.html` and returns its path.

  Args:
    folder: is created.
    title: of the page, plain text.
    body: HTML.

  Raises:
    UserError: the file cannot be written.
  """
  path = folder / FILE
  text = _PAGE.substitute(title=markup.text(title), style=_STYLE, body=body)
  with files.atomic_write(path, style.REMEDY) as file:
    file.write_text(text, encoding="utf-8")
  return path
