"""The JavaScript that draws charts on a page without a network."""

import json
from pathlib import Path

import altair as alt
import vl_convert

from sae_rna.files import write_atomically

#: Version of Vega-Lite that vl-convert and the book's bundle have to speak, Altair's own: "6.4".
VEGALITE = ".".join(alt.VEGALITE_VERSION.split(".")[:2])


def write_vega_bundle(path: Path):
    """Write Vega, Vega-Lite and Vega-Embed as one script that tells Altair's HTML that it has them.

    Altair's template looks for its own versions in `window.VEGA_DEBUG` and loads nothing when they match.
    Raises RuntimeError when vl-convert carries other versions than Altair asks for.
    """
    asked = {"vega": alt.VEGA_VERSION, "vega-embed": alt.VEGAEMBED_VERSION, "vega-lite": VEGALITE}
    carried = {"vega": vl_convert.get_vega_version(), "vega-embed": vl_convert.get_vega_embed_version()}
    carried["vega-lite"] = VEGALITE if VEGALITE in vl_convert.get_vegalite_versions() else "none of it"
    for library, version in asked.items():
        if not f"{carried[library]}.".startswith(f"{version}."):
            asks = f"Altair {alt.__version__} asks for {library} {version}"
            raise RuntimeError(f"{asks}, vl-convert carries {carried[library]}: move their pins together")
    versions = {"vega_version": alt.VEGA_VERSION, "vegalite_version": alt.VEGALITE_VERSION}
    said = json.dumps(versions | {"vegaembed_version": alt.VEGAEMBED_VERSION})
    # The function keeps the libraries' thousands of short names away from the page.
    libraries = vl_convert.javascript_bundle(vl_version=VEGALITE)  # type: ignore[call-arg] # of a wrong stub
    script = f"(function () {{\n{libraries}\n}})();\n"
    write_atomically(path, f"{script}window.VEGA_DEBUG = {said};\n")
