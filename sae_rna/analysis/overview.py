"""Page 00: what was found, and the way from sequences to features, in the run's own numbers."""

import pandas as pd

from sae_rna.analysis.claims import Finding, counts
from sae_rna.analysis.controls import best_of, leads
from sae_rna.analysis.data import distinct, in_settings
from sae_rna.records.splits import settings
from sae_rna.sae.activations import Activations
from sae_rna.sae.autoencoder import AutoencoderConfig

TITLES = {"sequences": "RNA records", "hidden states": "language model", "standardised tokens": "activations",
          "sparse codes": "sparse autoencoders", "features": "retained features",
          "concepts": "annotations"}  # fmt: skip
"""What is done in each box of fig-overview, by what flows out of it."""
SHOWN = ("stem", "hairpin loop", "hairpin-closing pair", "internal loop")
"""Concepts in fig-findings."""
LINES = ("autoencoder", "best control", "chance")


def pipeline(model, sae: AutoencoderConfig, architectures, rnas: Activations, structures) -> pd.DataFrame:
    """Boxes of fig-overview in reading order: step (what flows out of it), title and detail.

    model, sae : the language model; the configuration of the autoencoders shown in the figures
    rnas, structures : the evaluation RNAs of known type, encoded, and those of known structure
    """
    fit, types, retained = sae.training, rnas.records, retained_range(rnas)
    evaluated = len(distinct(structures, types))
    details = [
        f"{fit['sequences']:,} to train on, {evaluated:,} others to evaluate: {len(types):,} of known type, "
        f"{len(structures):,} of known structure",
        f"{model.source}: {model.blocks} blocks, width {model.width:,}, {model.parameter_count:,} parameters",
        f"{fit['tokens']:,} nucleotides x {len(rnas.layers)} layers, each dimension to mean 0 and variance 1",
        f"{sae.latents:,} latents a layer; {', '.join(architectures)}; the figures show {sae.architecture}",
        "{fewest:,} to {most:,} a layer fire in {min_sequences} or more RNAs".format(**retained),
        f"{_elements(structures)} structural elements, {types.type.nunique()} RNA types; features chosen on "
        f"one half, scored on the other, in {' and '.join(settings(types))}",
    ]
    return pd.DataFrame({"step": TITLES.keys(), "title": TITLES.values(), "detail": details})


def by_layer(concepts: pd.DataFrame) -> pd.DataFrame:
    """fig-findings' table from `controls.score_concepts`: setting, concept, layer, line, source, base_auroc.

    The lines are the autoencoder's best feature, the best control and chance, the null's 95th percentile.

    The control of a layer is the one that is best on the families on which features are chosen.
    """
    table = concepts[concepts.concept.isin(SHOWN) & concepts.layer.gt(0)]
    own = table.source == concepts.source.iloc[0]
    keys = ["setting", "concept", "layer"]
    rivals = table[~own].loc[table[~own].groupby(keys).selection_base_auroc.idxmax()]
    chance = table[own].assign(source="shifted annotations", base_auroc=table.null_p95)
    parts = [part[[*keys, "source", "base_auroc"]] for part in (table[own], rivals, chance)]
    table = pd.concat(part.assign(line=line) for line, part in zip(LINES, parts))
    return table.dropna(subset="base_auroc").reset_index(drop=True)


def numbers(concepts: pd.DataFrame, effects: pd.DataFrame, found: list[Finding]) -> dict:
    """What the sentences of the first page say of structure, types and verdicts.

    concepts : `controls.score_concepts`; effects : `type_features.effects`; found : `claims.findings`
    """
    led = leads(best_of(concepts))
    facts: dict = {"concepts": len(led), "clearly": int((led.lead_low > 0).sum())}
    facts["behind"] = int((led.lead_high < 0).sum())
    for name, concept in (("stem", "stem"), ("hairpin", "hairpin loop")):
        rows = led[(led.group == "element") & (led.concept == concept)].set_index("setting").iterrows()
        words = {of: f"{row.base_auroc:.2f} (best control {row.control_score:.2f})" for of, row in rows}
        facts[name] = in_settings(words) or "no RNA"
    of_type = effects.groupby(["setting", "type"]).surviving.sum().gt(0)
    by_setting = of_type.groupby("setting").agg(["sum", "size"]).iterrows()
    words = {of: f"{n['sum']} of {n['size']} types" for of, n in by_setting}
    facts["types"] = in_settings(words) or "no type"
    return facts | {"verdicts": counts(found)["verdicts"]}


def retained_range(rnas: Activations) -> dict:
    """Fewest and most features of a layer that fire in min_sequences or more RNAs, the paper's filter."""
    retained = rnas.summary.groupby("layer").retained.sum()
    return {"fewest": retained.min(), "most": retained.max(), "min_sequences": rnas.key["min_sequences"]}


def _elements(structures: pd.DataFrame) -> int:
    """How many kinds of structural elements both the selection and the held-out RNAs have."""
    letters = structures.groupby("split").element.agg(lambda elements: set("".join(elements)))
    return len(letters.get("selection", set()) & letters.get("heldout", set()))
