"""Where features of a layer come from, and what becomes of them in the next one.

Features of neighbouring layers are linked where their activations on the same nucleotides correlate by at
least `recurrence.RECURS`. Shapes: T nucleotides, A features of a layer, B of the next.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from tqdm import tqdm

from sae_rna.analysis.atlas import addresses, closest
from sae_rna.analysis.causes import tested_layers
from sae_rna.analysis.recurrence import RECURS
from sae_rna.analysis.statistics.firing import correlations
from sae_rna.sae.activations import Activations

MODEL, SHUFFLED, RANDOM = "language model", "shuffled nucleotides", "random weights"
EVENTS = "goes on", "splits", "merges", "ends"  # what becomes of a feature in the next layer
SHOWN = 24  # chains in the figure
OF_A_BASE = 0.6  # share of its firing on one base from which on a feature is called after it
_SHOWN_COLUMNS = ["place", "name", "layer", "feature", "page", "concept", "auroc",
                  "from_place", "from_correlation", "into_place", "into_correlation"]  # fmt: skip
_KEYS = ["source", "layer", "feature"]


def link(rnas: Activations, random: Activations, seed: int = 0) -> pd.DataFrame:
    """Every pair of retained features of neighbouring layers that are linked, on unseen families.

    rnas, random : RNAs of known structure as the language model's autoencoders and those of a model with
        random weights encode them

    Columns source, layer, feature, next_layer, next_feature, correlation. The source `SHUFFLED` has the next
    layer's activations shuffled among nucleotides of the same base: what is linked there, the base links.
    """
    rng, tables = np.random.default_rng(seed), []
    for name, of in ((MODEL, rnas), (RANDOM, random)):
        rows_T = np.flatnonzero(of.rows("selection") | of.rows("heldout"))
        shuffled_T = _shuffled(of.tokens.base.to_numpy()[rows_T], rng)
        before = None
        for layer in tqdm(tested_layers(of.layers), "lineage", mininterval=1):
            kept_F = np.flatnonzero(of.retained(layer))
            here = layer, kept_F, of.features(layer)[rows_T][:, kept_F]
            if before:
                tables.append(_linked(before, here, name))
                if name == MODEL:
                    tables.append(_linked(before, (layer, kept_F, here[2][shuffled_T]), SHUFFLED))
            before = here
    columns = [*_KEYS, "next_layer", "next_feature", "correlation"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _shuffled(base_T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An order of rows in which each stands in the place of one of the same base."""
    order_T = np.arange(len(base_T))
    for base in np.unique(base_T):
        own = np.flatnonzero(base_T == base)
        order_T[own] = rng.permutation(own)
    return order_T


def _linked(before: tuple, here: tuple, source: str) -> pd.DataFrame:
    (layer, kept_A, values_TA), (after, kept_B, values_TB) = before, here
    correlation_AB = correlations(values_TA, values_TB)
    a, b = np.nonzero(correlation_AB >= RECURS)
    columns = {"source": source, "layer": layer, "feature": kept_A[a], "next_layer": after}
    return pd.DataFrame(columns | {"next_feature": kept_B[b], "correlation": correlation_AB[a, b]})


def nodes(rnas: Activations, random: Activations) -> pd.DataFrame:
    """All features that `link` asks: columns source, layer, feature."""
    found = [
        pd.DataFrame({"source": name, "layer": layer, "feature": np.flatnonzero(of.retained(layer))})
        for name, of in ((MODEL, rnas), (SHUFFLED, rnas), (RANDOM, random))
        for layer in tested_layers(of.layers)
    ]
    return pd.concat(found, ignore_index=True)


def events(links: pd.DataFrame, nodes: pd.DataFrame) -> pd.DataFrame:
    """`nodes` with what becomes of each, `event`, and whether it `begins`: has no link to the layer before.

    goes on: one link, and its counterpart has no other; splits: several links; merges: one link, to a feature
    with several; ends: no link. Missing in the last layer, and `begins` in the first.
    """
    forth = links.groupby(_KEYS).size().rename("forth")
    back_keys = {"source": "source", "next_layer": "layer", "next_feature": "feature"}
    back = links.rename(columns={"layer": "_", "feature": "__"}).rename(columns=back_keys)
    back = back.groupby(_KEYS).size().rename("back")
    met = links.merge(back.rename_axis([*back_keys]).reset_index(), on=[*back_keys])
    shared = met.groupby(_KEYS).back.max().rename("shared")
    table = nodes
    for count in (forth, back, shared):
        table = table.merge(count.reset_index(), on=_KEYS, how="left")
    several, shared = table.forth > 1, table.shared > 1
    event = np.select([table.forth.isna(), several, shared], [EVENTS[3], EVENTS[1], EVENTS[2]], EVENTS[0])
    first, last = (table.groupby("source").layer.transform(end) for end in ("min", "max"))
    event = pd.Series(event, table.index).where(table.layer != last)
    return table[_KEYS].assign(event=event, begins=table.back.isna().where(table.layer != first))


def by_layer(known: pd.DataFrame) -> pd.DataFrame:
    """tab-lineage: a row per source and step from a layer to the next, with counts of `events`."""
    rows = []
    for source, of in known.groupby("source", sort=False):
        layers = sorted(of.layer.unique())
        for layer, after in zip(layers, layers[1:]):
            here, then = of[of.layer == layer], of[of.layer == after]
            counts = {event: int((here.event == event).sum()) for event in EVENTS}
            row = {"source": source, "step": f"L{layer} to L{after}", "features": len(here)} | counts
            rows.append(
                row | {"in the next layer": len(then), "begin there": int(then.begins.eq(True).sum())}
            )
    return pd.DataFrame(rows)


def chains(links: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The language model's features, each in one chain: two are in the same one where each is the other's
    strongest link. Columns layer, feature, chain (number of the chain from 0), before, before_correlation
    (the feature of the layer before that it is linked to most strongly, if any), after, after_correlation."""
    own = links[links.source == MODEL].sort_values("correlation", ascending=False, kind="stable")
    forth = own.drop_duplicates(["layer", "feature"])
    back = own.drop_duplicates(["next_layer", "next_feature"])
    ends = {"after": "next_feature", "after_correlation": "correlation"}
    table = known[known.source == MODEL][["layer", "feature"]].sort_values(["layer", "feature"])
    renamed = forth[["layer", "feature", "next_feature", "correlation"]]
    table = table.merge(renamed.rename(columns={of: name for name, of in ends.items()}), how="left")
    renamed = back[["next_layer", "next_feature", "feature", "correlation"]]
    renamed.columns = ["layer", "feature", "before", "before_correlation"]
    table = table.merge(renamed, on=["layer", "feature"], how="left")
    mutual = forth.merge(back, how="inner")
    earlier = dict(zip(zip(mutual.next_layer, mutual.next_feature), zip(mutual.layer, mutual.feature)))
    number: dict[tuple, int] = {}
    for key in zip(table.layer, table.feature):
        number[key] = number[earlier[key]] if key in earlier else max(number.values(), default=-1) + 1
    return table.assign(chain=[number[key] for key in zip(table.layer, table.feature)])


def strongest(chains: pd.DataFrame, scores: pd.DataFrame, letters: pd.DataFrame, autoencoders: Mapping):
    """fig-lineage's table: the `SHOWN` longest chains, those with a concept first; a row per feature.

    scores, letters : `atlas.score_concepts`, `atlas.letters`

    Columns place (from 0), name (of its feature that tells a concept best: the base of `OF_A_BASE` or more of
    its firing, else the concept, if above chance), layer, feature, page, concept and auroc (of the feature,
    if above chance), from_place and from_correlation (chain and strength of its strongest link to the layer
    before, where that chain is shown), and into_place and into_correlation (of the last feature of a chain
    that merges).
    """
    best = closest(scores)
    best = best.loc[best.auroc > best.chance, ["layer", "feature", "concept", "auroc"]]
    table = chains.merge(best, how="left").merge(
        letters[["layer", "feature", "base", "base_share"]], how="left"
    )
    groups = table.groupby("chain")
    order = pd.DataFrame({"named": groups.auroc.max().notna(), "length": groups.size()})
    order["strength"] = groups.before_correlation.mean()
    order = order[order.length > 1].sort_values(
        ["named", "length", "strength"], ascending=False, kind="stable"
    )
    place = {chain: n for n, chain in enumerate(order.index[:SHOWN])}
    shown = table[table.chain.isin(place)]
    told = (
        shown.sort_values("auroc", ascending=False, kind="stable").drop_duplicates("chain").set_index("chain")
    )
    fires = [f"{base} ({share:.0%})" for base, share in zip(told.base, told.base_share)]
    name = told.concept.fillna("no concept").where(told.base_share < OF_A_BASE, fires)
    chain_of = table.set_index(["layer", "feature"]).chain.to_dict()
    steps = dict(zip(layers := sorted(table.layer.unique()), layers[1:]))
    previous = {after: layer for layer, after in steps.items()}
    begun = [place.get(chain_of.get((previous.get(n), of))) for n, of in zip(shown.layer, shown.before)]
    into = [place.get(chain_of.get((steps.get(n), of))) for n, of in zip(shown.layer, shown.after)]
    shown = shown.assign(
        place=shown.chain.map(place), name=shown.chain.map(name), from_place=begun, into_place=into
    )
    shown = shown.assign(page=addresses(autoencoders, shown))
    renamed = {"before_correlation": "from_correlation", "after_correlation": "into_correlation"}
    shown = shown.rename(columns=renamed).astype({"from_place": float, "into_place": float})
    shown.loc[shown.into_place == shown.place, ["into_place", "into_correlation"]] = np.nan
    return shown[_SHOWN_COLUMNS].sort_values(["place", "layer"], ignore_index=True)


def called_after_bases(table: pd.DataFrame) -> int:
    """How many chains of `strongest` go through all layers and are called after a base."""
    chains = table.groupby("place").agg(name=("name", "first"), size=("layer", "size"))
    through = chains[chains["size"] == table.layer.nunique()]
    return int(through.name.astype(str).str.fullmatch(r"[ACGU] \(\d+%\)").sum())


def numbers(steps: pd.DataFrame, chains: pd.DataFrame) -> dict:
    """Numbers of captions, from `by_layer` and `chains`."""
    share = (steps[EVENTS[0]] / steps.features).groupby(steps.source)
    facts: dict = {"criterion": RECURS, "lowest": share.min()[MODEL], "highest": share.max()[MODEL]}
    total = steps.groupby("source").sum(numeric_only=True).reindex([MODEL, SHUFFLED, RANDOM], fill_value=0)
    for name, source in (("own", MODEL), ("shuffled", SHUFFLED), ("random", RANDOM)):
        facts[name] = float(total[EVENTS[0]][source] / max(total.features[source], 1))
    sizes = chains.groupby("chain").size()
    facts["random_features"] = int(total.features[RANDOM])
    facts |= {"through": int((sizes == chains.layer.nunique()).sum()), "layers": chains.layer.nunique()}
    facts |= {event.split()[0]: int(total[event][MODEL]) for event in EVENTS[1:]}
    return facts | {"begin": int(total["begin there"][MODEL]), "alone": int((sizes == 1).sum())}
