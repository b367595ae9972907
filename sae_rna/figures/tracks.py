"""A feature on example RNAs (Figures 3 and 4): as a sequence track and on the drawn secondary structure."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import ACTIVATION, ELEMENT_COLOURS, GREY, INK, MONOSPACE, WIDTH
from sae_rna.records.structure import ELEMENTS, dot_bracket, split_pseudoknots

#: Nucleotides in one row of a track.
ROW = 60
# Heights in a row of a track, pixels: numbers, dot-bracket, bases, elements, gap.
_NUMBERS, _BRACKETS, _BASES, _ELEMENTS, _GAP = 12, 14, 20, 8, 8
_BLOCK = _NUMBERS + _BRACKETS + _BASES + _ELEMENTS + _GAP
_CELL = WIDTH / ROW
# The drawing: a backbone step is at most this long, and the whole at most that high, pixels.
_STEP, _HEIGHT = 25, 440


def layout(structure: str) -> pd.DataFrame:
    """Where each nucleotide of `structure` is drawn: x and y, a row each, a backbone step being about 1.

    The layout is multimolecule's; nested pairs are drawn, pseudoknots do not bend it. Compact RNAs hang from
    their ends, 5' on the left, as a tRNA cloverleaf does; long hairpins lie on their side, 5' strand on top,
    as a miRNA precursor does. Raises ValueError naming the position of a symbol that is no dot-bracket.
    """
    from multimolecule.visualize.rna.secondary_structure import layout as drawing  # seconds to import

    nested, _ = split_pseudoknots(structure)
    x, y = drawing.secondary_structure_layout(dot_bracket(nested), normalize=False)
    place = np.column_stack([x, y])
    if len(place) > 2:
        place = _upright_or_lying(place - place.mean(0))
    return pd.DataFrame(place - place.min(0, initial=0), columns=["x", "y"])


def _upright_or_lying(place: np.ndarray) -> np.ndarray:
    """Coordinates [length, 2], turned (and, when upright, mirrored) to how RNA people draw such a shape."""
    ends = (place[0] + place[-1]) / 2
    _, spread, axes = np.linalg.svd(place, full_matrices=False)
    if spread[0] > 2 * spread[1]:
        ahead = axes[0] if axes[0] @ ends < 0 else -axes[0]  # from the ends along the length
        return place @ np.column_stack([ahead, [-ahead[1], ahead[0]]])
    ahead = -ends / max(np.linalg.norm(ends), 1e-9)
    return place @ np.column_stack([[ahead[1], -ahead[0]], -ahead])


def feature_tracks(tracks: pd.DataFrame) -> alt.VConcatChart:
    """Figures 3 and 4: activation of a feature along example RNAs and on their drawn secondary structure.

    `tracks`: one row per nucleotide, with record (id), rna (its name for readers), place (such as "best of
    153 RNAs"), position (1-based), base, bracket, element (letter), activation (0..1, share of the feature's
    maximum), partner (1-based, 0 if unpaired), feature, layer, concept (what the feature is to stand for) and
    fault (why it does not; empty if it does), which the title says. RNAs are drawn in the order of the table,
    `ROW` nucleotides in a row.
    """
    columns = "record rna place position base bracket element activation partner feature layer concept fault"
    table = theme.checked(tracks, "feature_tracks", columns)
    present = theme.known(table.element, ELEMENTS)
    colours = [ELEMENT_COLOURS[letter] for letter in present]
    scale = alt.Scale(domain=[ELEMENTS[letter] for letter in present], range=colours)
    panels, shown = [], []
    for (_, feature, layer), rna in table.groupby(["record", "feature", "layer"], sort=False):
        rna = _with_places(rna)
        name, first = f"feature {feature} of {theme.layer_name(layer)}", rna.iloc[0]
        title = alt.Title(str(first.rna), subtitle=f"{name}, {first.place}, {len(rna)} nt")
        panels += [_track(rna, scale).properties(title=title), _drawing(rna, scale)]
        shown.append(f"{name} on {first.rna}, {first.place}")
    chart = alt.vconcat(*panels, spacing=12, center=True)
    verdict = _verdict(table.iloc[0])
    chart = chart.properties(title=alt.Title(**verdict, fontSize=14, offset=12)) if verdict else chart
    return chart.resolve_scale(fill="shared", color="shared", stroke="independent").properties(
        description=f"{'; '.join([*verdict.values(), ''])}Activation of {'; '.join(shown)}: as a coloured "
        "cell per nucleotide above its structural element, and as colour on the drawn secondary structure."
    )


def _verdict(feature: pd.Series) -> dict[str, str]:
    """Title and subtitle of a feature that does not stand for its concept; nothing for one that does."""
    if not feature.fault:
        return {}
    text = f"No single {feature.concept} feature passes; this is the best there is"
    return {"text": text, "subtitle": f"It does not count, since {feature.fault}."}


def _with_places(rna: pd.DataFrame) -> pd.DataFrame:
    """`rna` with places in the track (column, top), in the drawing, and what is written there."""
    rna = rna.sort_values("position").reset_index(drop=True)
    partner = rna.partner.to_numpy()
    rna[["x", "y"]] = layout("".join(rna.bracket))
    rna["column"], rna["top"] = (rna.position - 1) % ROW, (rna.position - 1) // ROW * _BLOCK
    opening = partner > rna.position  # each pair is drawn once, from its 5' nucleotide
    for axis in ("x", "y"):
        rna[f"partner_{axis}"] = np.where(opening, rna[axis].to_numpy()[partner - 1], np.nan)
    rna["name"] = rna.element.map(ELEMENTS)
    rna["paired_with"] = [f"{rna.base[p - 1]}{p}" if p else "–" for p in partner]
    rna["label"], rna["label_x"], rna["label_y"] = _numbers(rna[["x", "y"]].to_numpy())
    return rna


def _numbers(place: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """5′, 3′ and every tenth number: labels [length] (empty where there is none), their x and y [length].

    `place`: coordinates [length, 2]. Each stands where, of 24 places around its nucleotide, it is farthest
    from all else that is drawn.
    """
    last = len(place) - 1
    text = {0: "5′", last: "3′"} | {i: str(i + 1) for i in range(9, last - 1, 10)}
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = 1.25 * np.column_stack([np.cos(angle), np.sin(angle)])
    at, taken = place.copy(), place
    for i in text:
        others = taken[np.any(taken != place[i], axis=1)]
        candidates = place[i] + around
        free = np.linalg.norm(candidates[:, None] - others, axis=-1).min(1, initial=np.inf)
        at[i] = candidates[free.argmax()]
        taken = np.vstack([taken, at[i]])
    return [text.get(i, "") for i in range(len(place))], at[:, 0], at[:, 1]


_TOOLTIP = [*theme.tooltips(rna="RNA"), "position:Q", "base:N"]
_TOOLTIP += theme.tooltips(paired_with="paired with", name="element") + theme.tooltips(".3f", "activation")
_LETTERS = alt.condition("datum.activation > 0.45", alt.value("white"), alt.value(INK))
_LEGEND = {"orient": "top", "direction": "horizontal"}
_BAR = alt.Legend(tickCount=3, gradientLength=120, gradientThickness=9, **_LEGEND)
_SHADES = alt.Scale(domain=[0, 1], range=ACTIVATION)
_FILL = alt.Fill("activation:Q", title="activation", scale=_SHADES, legend=_BAR)


def _track(rna: pd.DataFrame, scale: alt.Scale) -> alt.LayerChart:
    """Rows of numbers, dot-bracket, bases on their activation, and elements. All heights are pixels."""
    width, height = min(ROW, len(rna)), int(rna.top.max()) + _BLOCK - _GAP
    at = theme.places([0, width], [0, height], down=True)

    def lane(start: int, thickness: int) -> alt.Chart:
        heights = {"upper": start, "lower": start + thickness, "centre": start + thickness / 2}
        tops = {name: f"datum.top + {pixels}" for name, pixels in heights.items()}
        chart = alt.Chart(rna).encode(tooltip=_TOOLTIP)
        return chart.transform_calculate(right="datum.column + 1", middle="datum.column + 0.5", **tops)

    def cells(start: int, thickness: int, **encoding) -> alt.Chart:
        edges = at("column:Q", "upper:Q") | {"x2": "right:Q", "y2": "lower:Q"}
        return lane(start, thickness).mark_rect(strokeWidth=0).encode(**edges, **encoding)

    def text(start: int, thickness: int, column: str, **mark) -> alt.Chart:
        letters = lane(start, thickness).mark_text(baseline="middle", **mark)
        return letters.encode(**at("middle:Q", "centre:Q"), text=f"{column}:N")

    brackets, bases = _NUMBERS, _NUMBERS + _BRACKETS
    legend = alt.Legend(symbolType="square", columns=8, **_LEGEND)
    element = alt.Color("name:N", title="element", scale=scale, legend=legend)
    numbers = text(0, _NUMBERS, "position", fontSize=10, color=GREY)
    return alt.layer(
        numbers.transform_filter("datum.position == 1 || datum.position % 10 == 0"),
        text(brackets, _BRACKETS, "bracket", font=MONOSPACE, fontSize=12, color=INK),
        cells(bases, _BASES, fill=_FILL, stroke=alt.value("white"), strokeWidth=alt.value(1)),
        text(bases, _BASES, "base", font=MONOSPACE, fontSize=12).encode(color=_LETTERS),
        cells(bases + _BASES, _ELEMENTS, color=element),
    ).properties(width=_CELL * width, height=height)


def _drawing(rna: pd.DataFrame, scale: alt.Scale) -> alt.LayerChart:
    """The secondary structure: backbone, pairs, circles filled by activation and ringed by element."""
    margin = 2  # for numbers, backbone steps
    across, up = np.ptp(rna.x) + 2 * margin, np.ptp(rna.y) + 2 * margin
    step = min(_STEP, WIDTH / across, _HEIGHT / up)
    x, y = ([place.min() - margin, place.max() + margin] for place in (rna.x, rna.y))
    at = theme.places(x, y, zero=False)
    base = alt.Chart(rna).encode(**at("x:Q", "y:Q"))
    pair = base.transform_filter("datum.partner > datum.position").encode(x2="partner_x:Q", y2="partner_y:Q")
    knot = {"color": ELEMENT_COLOURS["K"], "strokeDash": [3, 2], "opacity": 0.6}
    ring = alt.Stroke("name:N", scale=scale, legend=None)
    circles = base.mark_circle(size=(0.8 * step) ** 2, opacity=1, strokeWidth=max(1.2, 0.09 * step))
    letters = base.mark_text(font=MONOSPACE, fontSize=0.55 * step, baseline="middle", tooltip=None)
    numbers = base.mark_text(fontSize=max(9, min(11, 0.5 * step)), color=GREY, baseline="middle")
    return alt.layer(
        base.mark_line(color="#b8b8b8", strokeWidth=0.08 * step).encode(order="position:Q"),
        pair.transform_filter("datum.element != 'K'").mark_rule(color="#7a7a7a", strokeWidth=0.11 * step),
        pair.transform_filter("datum.element == 'K'").mark_rule(**knot),
        circles.encode(fill=_FILL, stroke=ring, tooltip=_TOOLTIP),
        letters.encode(text="base:N", color=_LETTERS),
        numbers.encode(**at("label_x:Q", "label_y:Q"), text="label:N"),
    ).properties(width=step * across, height=step * up)
