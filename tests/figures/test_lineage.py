"""Chains of features: a dot for each feature, a line for each link, an address for each dot."""

import re

from causal_tables import chains_table
from drawn import all_rows

from sae_rna import figures
from sae_rna.publishing.outputs import chart_svg


def test_every_link_is_a_line_between_the_places_of_its_features():
    links = all_rows(figures.lineage(chains_table())).dropna(subset=["x2"])
    drawn = set(zip(links.x, links.place, links.x2, links.y2, links.kind))
    same, other = "the same chain", "another chain"
    assert drawn == {(1, 0, 0, 0, same), (2, 0, 1, 0, same), (1, 1, 0, 0, other), (2, 1, 1, 1, same),
                     (0, 2, 1, 0, other)}  # fmt: skip


def test_every_dot_leads_to_its_page():
    svg = chart_svg(figures.lineage(chains_table()).to_dict(), "")
    assert set(re.findall(r'xlink:href="([^"]*)"', svg)) == set(chains_table().page)
    assert "<script>" not in svg
