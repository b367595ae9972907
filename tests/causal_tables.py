"""Tables of what features answer to and do, and whether they are real, as the figures take them."""

import numpy as np
import pandas as pd
from contact_tables import SETTINGS

from sae_rna.analysis.statistics.falsification import STAYS, TESTS

CLOVERLEAF = (
    "(((((((..((((........))))((((((.......))))))...(((((.......))))))))))))."  # bpRNA_CRW_29143, a tRNA
)


def pairing_table() -> pd.DataFrame:
    """Features of three kinds; what is broken is brought back in part."""
    kinds = ["other features"] * 6 + ["random weights"] * 4 + ["pairing features"] * 2
    broken = np.linspace(-0.01, 0.02, len(kinds))
    table = pd.DataFrame({"kind": kinds, "layer": 5, "feature": range(len(kinds)), "broken": broken})
    table = table.assign(rescued=broken / 2, gamma=broken, low=broken - 0.001, high=broken + 0.001)
    return table.assign(auroc=np.linspace(0.48, 0.58, len(kinds)), q=0.04)


def mutations_table(structure: str = CLOVERLEAF) -> pd.DataFrame:
    """At each position the three other bases, with changes from -1 to 1."""
    rows = [
        {"rna": "a tRNA", "position": at + 1, "base": "ACGU"[at % 4], "bracket": bracket, "substitute": base}
        for at, bracket in enumerate(structure) for base in "ACGU" if base != "ACGU"[at % 4]
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(change=np.linspace(-1, 1, len(rows)))


def interventions_table() -> pd.DataFrame:
    """Taken away, the first feature lowers the partner's log-odds beyond its controls."""
    names = ["intervention", "feature", "place"]
    kinds = ["taken away", "carried over"], [7, 123, 40], ["partner", "unpaired nucleotide"]
    table = pd.MultiIndex.from_product(kinds, names=names).to_frame(index=False)
    effect = np.linspace(-0.3, 0.1, len(table))
    table = table.assign(layer=5, effect=effect, low=effect - 0.05, high=effect + 0.05, least=-0.2, most=0.05)
    return table.assign(controls=100, beyond=effect < -0.2)


def doses_table() -> pd.DataFrame:
    sources = ["feature 7", "feature 123", "difference of means", "linear probe", "random direction"]
    names, places = ["source", "dose", "place"], ["partner", "unpaired nucleotide"]
    table = pd.MultiIndex.from_product([sources, range(5), places], names=names).to_frame(index=False)
    effect = 0.1 * table.dose * (1 + table.source.map(sources.index))
    return table.assign(layer=5, effect=effect, low=effect - 0.05, high=effect + 0.05)


def steered_table(length: int = 30) -> pd.DataFrame:
    """As it is, A has 97 % at every position; with the feature changed all bases have as much."""
    table = pd.DataFrame({"position": np.repeat(np.arange(length) + 1, 4), "base": "G"})
    table["predicted"] = list("ACGU") * length
    return table.assign(own=np.where(table.predicted == "A", 0.97, 0.01), steered=0.25)


def planted_table(sources=("topk", "relu-l1", "frozen decoder", "untrained")) -> pd.DataFrame:
    rows = [
        {"source": source, "latent": latent, "f1": 0.9 - 0.08 * number, "cosine": 0.8}
        for number, source in enumerate(sources)
        for latent in ("A", "paired", "hairpin loop of 4 nt", "3-mers, mean of 64")
    ]
    return pd.DataFrame(rows).assign(precision=0.9, recall=0.8)


def falsification_table() -> pd.DataFrame:
    """Stems follow the structure, bulges the letters; a test of ends does not apply."""
    shares = {
        "stem": (0.1, 0.2, 0.9, 0.8),
        "bulge": (0.9, 2.0, 0.6, 0.2),
        "end": (np.nan, np.nan, 0.9, np.nan),
    }
    rows = [
        {"source": source, "setting": setting, "concept": concept, "test": test, "stays": test in STAYS}
        | {"share": share if source == "SAE" else 0.6, "low": share - 0.1, "high": share + 0.1}
        for source in ("SAE", "control")
        for setting in SETTINGS
        for concept, of in shares.items()
        for test, share in zip(TESTS, of)
    ]
    verdict = {"stem": "keeps its name", "bulge": "loses its name", "end": "cannot be told"}
    return pd.DataFrame(rows).assign(bound=0.5, verdict=lambda table: table.concept.map(verdict))


def chains_table() -> pd.DataFrame:
    """A chain over three layers, one that splits from it, and one that merges into it."""
    rows = [(0, "stem", 1, 10, 0.7, np.nan, np.nan), (0, "stem", 2, 11, np.nan, 0, np.nan),
            (0, "stem", 3, 12, 0.8, 0, np.nan), (1, "A (90%)", 2, 13, np.nan, 0, np.nan),
            (1, "A (90%)", 3, 14, np.nan, 1, np.nan), (2, "<script>", 1, 15, np.nan, np.nan, 0)]  # fmt: skip
    columns = ["place", "name", "layer", "feature", "auroc", "from_place", "into_place"]
    made = pd.DataFrame(rows, columns=columns)
    made["concept"] = made.auroc.map(lambda auroc: "stem" if auroc == auroc else None)
    made["from_correlation"] = made.from_place.map(lambda place: 0.9 if place == place else np.nan)
    made["into_correlation"] = made.into_place.map(lambda place: 0.75 if place == place else np.nan)
    return made.assign(page=[f"../atlas/abc-L{n}-{of}.html" for n, of in zip(made.layer, made.feature)])


def tuned_table() -> pd.DataFrame:
    """Two tasks, three methods, both sides, two seeds; all weights change most."""
    sides, sizes = ["RNAs of the task", "other RNAs"], {"gains of latents": 256, "LoRA": 256, "all": 235_065}
    levels = {"task": ["natural tRNA", "RNA types"], "method": [*sizes], "side": sides, "seed": [0, 1]}
    table = pd.MultiIndex.from_product(levels.values(), names=levels).to_frame(index=False)
    change = -0.01 * (1 + table.method.map([*sizes].index)) * np.where(table.side == sides[0], 1, -0.5)
    table = table.assign(
        parameters=table.method.map(sizes), change=change, of_seed=change + 0.001 * table.seed
    )
    spread = np.where(table.side == sides[0], 0.004, np.nan)
    return table.assign(low=change - spread, high=change + spread)


def curves_table() -> pd.DataFrame:
    levels = {
        "task": ["natural tRNA", "vault"],
        "method": ["gains of latents", "LoRA"],
        "examples": [6, 18, 54],
    }
    table = pd.MultiIndex.from_product(levels.values(), names=levels).to_frame(index=False)
    change = -0.001 * table.examples * (1 + (table.method == "LoRA"))
    return table.assign(change=change, low=change - 0.01, high=change + 0.01)
