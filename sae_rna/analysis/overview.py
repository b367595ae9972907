"""Page 00: the way from sequences to features, in the run's own numbers."""

import pandas as pd

from sae_rna.analysis.claims import HOLDS, NOT, UNKNOWN, WEAKLY, Finding
from sae_rna.analysis.data import distinct
from sae_rna.records.splits import settings
from sae_rna.sae.activations import Activations
from sae_rna.sae.autoencoder import AutoencoderConfig

TITLES = {"sequences": "RNA records", "hidden states": "language model", "standardised tokens": "activations",
          "sparse codes": "sparse autoencoders", "features": "retained features",
          "concepts": "annotations"}  # fmt: skip
"""What is done in each box of fig-overview, by what flows out of it."""


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


def findings(found: list[Finding]) -> list[str]:
    """What was found, a sentence per verdict that any of `claims.findings` has, with the claims it is of."""
    words = {HOLDS: "Holds", WEAKLY: "Holds weakly", NOT: "Does not hold here", UNKNOWN: "Cannot be told"}
    claims = {verdict: [one.claim for one in found if one.verdict == verdict] for verdict in words}
    return [
        f"{words[verdict]} ({len(of)} of {len(found)}): {'; '.join(of)}."
        for verdict, of in claims.items()
        if of
    ]


def retained_range(rnas: Activations) -> dict:
    """Fewest and most features of a layer that fire in min_sequences or more RNAs, the paper's filter."""
    retained = rnas.summary.groupby("layer").retained.sum()
    return {"fewest": retained.min(), "most": retained.max(), "min_sequences": rnas.key["min_sequences"]}


def _elements(structures: pd.DataFrame) -> int:
    """How many kinds of structural elements both the selection and the held-out RNAs have."""
    letters = structures.groupby("split").element.agg(lambda elements: set("".join(elements)))
    return len(letters.get("selection", set()) & letters.get("heldout", set()))
