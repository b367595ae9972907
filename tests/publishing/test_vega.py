"""The JavaScript of the pages' charts."""

import json
import re

import altair as alt
import pandas as pd
import pytest

from sae_rna.publishing import vega, write_vega_bundle
from sae_rna.publishing.outputs import chart_html


def test_the_bundle_says_what_altairs_page_asks_for(tmp_path):
    write_vega_bundle(tmp_path / "vendor" / "vega-bundle.js")
    bundle = (tmp_path / "vendor" / "vega-bundle.js").read_text()
    said = json.loads(re.search(r"window\.VEGA_DEBUG = (\{.*\});\s*$", bundle)[1])
    chart = alt.Chart(pd.DataFrame({"x": [1]})).mark_point()
    asked = dict(re.findall(r'maybeLoadScript\("([\w-]+)", "([^"]+)"\)', chart_html(chart, "fig-points")))
    assert (
        said == {f"{library.replace('-', '')}_version": version for library, version in asked.items()}
        and len(said) == 3
    )
    assert bundle.startswith("(function () {")
    assert all(f"window.{name}=" in bundle for name in ("vegaEmbed", "vega", "vegaLite"))


@pytest.mark.parametrize(
    "owner, attribute, value, library",
    [
        (alt, "VEGA_VERSION", "7", "vega 7"),
        (alt, "VEGAEMBED_VERSION", "8", "vega-embed 8"),
        (vega, "VEGALITE", "7.0", "vega-lite 7.0"),
    ],
)
def test_no_bundle_is_made_when_altair_has_moved_on(tmp_path, monkeypatch, owner, attribute, value, library):
    monkeypatch.setattr(owner, attribute, value)
    with pytest.raises(RuntimeError, match=f"asks for {library}.*move their pins together"):
        write_vega_bundle(tmp_path / "vega-bundle.js")
