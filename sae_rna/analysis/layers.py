"""Page 04: how the layers differ in sparsity and in selectivity for RNA types."""

import numpy as np
import pandas as pd

from sae_rna.sae.activations import Activations


def by_layer(summary: pd.DataFrame, rnas: Activations) -> pd.DataFrame:
    """Figure 2's table: how sparse, alive, faithful and type-selective each layer is, for every architecture.

    `summary` is that of the `rnas`, of all architectures. Columns layer, architecture, latents, retained
    (features), dead_share, l0 (active latents a nucleotide), explained_variance, type_selectivity (mean tau
    of retained features), tokens, sequences, density_p10 to density_p90 (deciles of live features' density).
    """
    rows = []
    for (layer, architecture), table in summary.groupby(["layer", "architecture"]):
        density, explained, kept = table.density, table.explained_variance.iloc[0], table.retained
        row = {"layer": layer, "architecture": architecture, "latents": len(table)}
        row |= {"retained": int(kept.sum()), "dead_share": (density == 0).mean(), "l0": density.sum()}
        row |= {"explained_variance": explained, "type_selectivity": table.tau[kept].mean()}
        row |= {"tokens": len(rnas.tokens), "sequences": len(rnas.records)}
        live = density[density > 0]
        rows.append(row | {f"density_p{q}": live.quantile(q / 100) for q in range(10, 100, 10)})
    return pd.DataFrame(rows)


def conclusion(layers: pd.DataFrame, architecture: str) -> dict:
    """Median firing density and type selectivity in the first and last layer; rank correlations (trend)."""
    table = layers[layers.architecture == architecture].sort_values("layer")
    facts: dict = {"first": int(table.layer.iloc[0]), "last": int(table.layer.iloc[-1])}
    for name, column, style in (("density", "density_p50", ".2%"), ("tau", "type_selectivity", ".3f")):
        values = table[column]
        trend = values.corr(table.layer, "spearman") if values.nunique() > 1 else np.nan
        facts |= {f"{name}_first": f"{values.iloc[0]:{style}}", f"{name}_last": f"{values.iloc[-1]:{style}}"}
        facts[f"{name}_trend"] = "unknown" if np.isnan(trend) else f"{trend:.2f}"
    return facts
