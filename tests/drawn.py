"""What can be read off a drawn chart."""

import re
import xml.etree.ElementTree as ElementTree

import altair as alt
import numpy as np
import pandas as pd


def marks(svg: ElementTree.Element, kind: str) -> list[str]:
    """What a screen reader says of every mark of a kind."""
    return [
        element.get("aria-label", "") for element in svg.iter() if element.get("aria-roledescription") == kind
    ]


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()) for element in svg.iter() if element.tag.endswith("}text")]


def all_rows(chart: alt.TopLevelMixin) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(rows) for rows in chart.to_dict()["datasets"].values()], ignore_index=True)


def placed(svg: ElementTree.Element, kind: str = "point") -> list[tuple[str, float, float]]:
    """Label, x and y (in its panel) of every mark of a kind."""
    elements = [element for element in svg.iter() if element.get("aria-roledescription") == kind]
    places = [
        re.match(r"translate\(([^,]+),([^)]+)\)", element.get("transform")).groups() for element in elements
    ]
    return [(element.get("aria-label"), float(x), float(y)) for element, (x, y) in zip(elements, places)]


def said(label: str, name: str) -> float:
    """The number of that name in a mark's label."""
    return float(re.search(f"(?:^|; ){name}: ([^;%]+)", label)[1].replace("−", "-"))


def linear(values: list[float], places: list[float]) -> bool:
    """Whether places are a linear function of values, as they are not where something is cut off."""
    return len(values) > 2 and np.allclose(
        np.polyval(np.polyfit(values, places, 1), values), places, atol=0.1
    )


def of_kind(svg: ElementTree.Element, kind: str) -> list[tuple[str, float, float]]:
    return [place for place in placed(svg) if f"kind: {kind}" in place[0]]
