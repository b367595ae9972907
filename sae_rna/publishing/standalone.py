"""A page in one file: no script, nothing loaded, whatever it holds escaped."""

from collections.abc import Iterable
from html import escape

import altair as alt
import pandas as pd

from sae_rna.publishing.outputs import chart_svg
from sae_rna.publishing.tables import table_html

_STYLE = """
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; background: white; color: #222;
  font: 1rem/1.5 Arial, Helvetica, sans-serif; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .2rem .5rem; border-bottom: 1px solid #ddd; vertical-align: top; }
svg { max-width: 100%; height: auto; }
"""


def page_html(title: str, parts: Iterable[str | pd.DataFrame | alt.TopLevelMixin]) -> str:
    """HTML of a page: texts as paragraphs, or headings if they start with "# ", tables, and charts as SVG."""
    body = "\n".join([f"<h1>{escape(title)}</h1>", *map(_part, parts)])
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    head += f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>"
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _part(part: str | pd.DataFrame | alt.TopLevelMixin) -> str:
    if isinstance(part, pd.DataFrame):
        return table_html(part)
    if isinstance(part, str):
        heading = part.startswith("# ")
        return f"<h2>{escape(part[2:])}</h2>" if heading else f"<p>{escape(part)}</p>"
    spec = part.to_dict()
    return f"<figure>{chart_svg(spec, spec.get('description', ''))}</figure>"
