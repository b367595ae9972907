"""Page 05: do the layers pass from diffuse to sparse, and do they become selective for RNA types?

Shapes: S RNAs, L layers, R resamples.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from sae_rna.analysis.statistics.intervals import resampled_means
from sae_rna.sae.activations import Activations
from sae_rna.sae.features import run_numbers

BOOTSTRAPS = 1000  # resamples of the RNAs for the interval of a trend


def by_layer(summary: pd.DataFrame, rnas: Activations) -> pd.DataFrame:
    """Figure 2's table: how sparse, alive, faithful and type-selective each layer is, for every architecture.

    `summary` is that of the `rnas`, of all architectures. Columns layer, architecture, latents, retained
    (features), dead_share, l0 (active latents a nucleotide), breadth (share of the RNAs in which a live
    feature fires, a mean over them), explained_variance, type_selectivity (mean tau of retained features),
    tokens, sequences, density_p10 to density_p90 (deciles of live features' density).
    """
    rows = []
    for (layer, architecture), table in summary.groupby(["layer", "architecture"]):
        density, explained, kept = table.density, table.explained_variance.iloc[0], table.retained
        live = density > 0
        row = {"layer": layer, "architecture": architecture, "latents": len(table)}
        row |= {"retained": int(kept.sum()), "dead_share": 1 - live.mean(), "l0": density.sum()}
        row |= {"breadth": table.sequences[live].mean() / len(rnas.records)}
        row |= {"explained_variance": explained, "type_selectivity": table.tau[kept].mean()}
        row |= {"tokens": len(rnas.tokens), "sequences": len(rnas.records)}
        rows.append(row | {f"density_p{q}": density[live].quantile(q / 100) for q in range(10, 100, 10)})
    return pd.DataFrame(rows)


def active_shares(rnas: Activations) -> pd.DataFrame:
    """How much of a layer an RNA uses: the share of live features that fire in a stretch of its middle.

    All stretches are as long as the median RNA of the type whose RNAs are shortest, since a longer RNA has
    more features for no other reason; shorter RNAs are left out. Live features fire in some RNA of the
    records. A row per RNA and layer: id, type, family (where known), layer, active (0..1), stretch (nt).
    """
    lengths = rnas.records.sequence.str.len()
    stretch = int(lengths.groupby(rnas.records.type).median().min())
    record_T, position_T = rnas.tokens.record.to_numpy(), rnas.tokens.position.to_numpy()
    first_S = (lengths.to_numpy() - stretch) // 2
    offset_T = position_T - first_S[record_T]
    within_T = (first_S[record_T] >= 0) & (offset_T >= 0) & (offset_T < stretch)
    records = rnas.records.iloc[np.unique(record_T[within_T])]
    columns, tables = [name for name in ("id", "type", "family") if name in records], []
    run_T = run_numbers(record_T[within_T])
    for layer in rnas.layers:
        live_F = (rnas.summary[rnas.summary.layer == layer].density > 0).to_numpy()
        fires = rnas.features(layer)[within_T].tocoo()
        pairs = np.unique(run_T[fires.row] * fires.shape[1] + fires.col)  # of an RNA and a feature
        active_S = np.bincount(pairs // fires.shape[1], minlength=len(records)) / max(live_F.sum(), 1)
        tables.append(records[columns].assign(layer=layer, active=active_S))
    return pd.concat(tables, ignore_index=True).assign(stretch=stretch)


def type_sparsity(sources: dict[str, tuple[Activations, pd.DataFrame]]) -> pd.DataFrame:
    """fig-type-sparsity's table, from `active_shares` of the language model's RNAs and of its control's.

    sources : the name of each -> the activations and their shares

    Columns source, layer, type, active (mean over the type's RNAs), rnas, selectivity (mean tau of the
    layer's retained features).
    """
    tables = []
    for source, (rnas, shares) in sources.items():
        table = shares.groupby(["layer", "type"]).active.agg(active="mean", rnas="size").reset_index()
        retained = rnas.summary[rnas.summary.retained]
        tau = table.layer.map(retained.groupby("layer").tau.mean())
        tables.append(table.assign(selectivity=tau, source=source))
    return pd.concat(tables, ignore_index=True)


def trend(shares: pd.DataFrame, seed: int = 0) -> dict:
    """Spearman's rank correlation of a layer's mean share with the layer, and its 95 % interval.

    shares : of `active_shares`; every type weighs the same, as in the figure

    The interval is that of `BOOTSTRAPS` resamples of the families of each type (of its RNAs, where families
    are not known). Keys rho, low, high, NaN with fewer than three layers; first and last (mean shares), and
    of how they differ the interval, fall and rise.
    """
    unit = "family" if "family" in shares else "id"
    units = shares[unit].fillna(shares.id)
    cells = shares.groupby([shares.type, units, "layer"]).active.agg(["sum", "size"]).unstack("layer")
    mean_L, mean_RL = resampled_means(cells, BOOTSTRAPS, np.random.default_rng(seed))
    low, high = np.percentile(rank_correlations(mean_RL), [2.5, 97.5])
    facts = {"rho": rank_correlations(mean_L[None])[0], "low": low, "high": high}
    fall, rise = np.percentile(mean_RL[:, -1] - mean_RL[:, 0], [2.5, 97.5])
    return facts | {"first": mean_L[0], "last": mean_L[-1], "fall": fall, "rise": rise}


def rank_correlations(values_RL: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of every row with its columns' order, [R]; 0 for a row of equal values."""
    if values_RL.shape[1] < 3:
        return np.full(len(values_RL), np.nan)
    ranks = np.vstack([rankdata(values_RL, axis=1), np.arange(values_RL.shape[1])])
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.corrcoef(ranks)[-1, :-1])


def in_words(trend: dict) -> str:
    """What a `trend` says, and the numbers behind it: a direction if both its intervals leave no other one.

    The ranks of few layers may be certain and yet hardly rise or fall, or not as the ends do.
    """
    if not np.isfinite(trend["rho"]):
        return "have no trend that three layers or more could show"
    interval = f"rank correlation with depth {trend['rho']:.2f}, 95 % interval {trend['low']:.2f} to "
    facts = f"{trend['first']:.1%} to {trend['last']:.1%} of features, {interval}{trend['high']:.2f}"
    if max(trend["high"], trend["rise"]) < 0:
        return f"pass from diffuse to sparse ({facts})"
    rises = min(trend["low"], trend["fall"]) > 0
    return f"{'pass from sparse to diffuse' if rises else 'show no clear trend'} ({facts})"


def conclusion(layers: pd.DataFrame, random: pd.DataFrame, architectures: Sequence[str]) -> dict:
    """Type selectivity in the first and last layer and its rank correlation with depth, in the shown
    architecture and the random model's (`by_layer` of both); `breadth_trends` of all architectures, in words.
    """
    facts, trends = dict[str, str](), []
    for prefix, table in (("", layers), ("random_", random)):
        own = table[table.architecture == architectures[0]].sort_values("layer").type_selectivity
        facts |= {f"{prefix}tau_first": f"{own.iloc[0]:.3f}", f"{prefix}tau_last": f"{own.iloc[-1]:.3f}"}
        facts[f"{prefix}tau_trend"] = _written(own)
    for name in architectures:
        own = layers[layers.architecture == name].sort_values("layer").breadth
        trends.append(f"{name} {_written(own)}")
    return facts | {"breadth_trends": ", ".join(trends)}


def _written(by_layer: pd.Series) -> str:
    rho = rank_correlations(by_layer.to_numpy()[None])[0] if by_layer.notna().all() else np.nan
    return "unknown" if np.isnan(rho) else f"{rho:.2f}"
