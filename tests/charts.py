"""Tables as the figures take them, and a chart of each."""

import functools
import xml.etree.ElementTree as ElementTree

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from causal_tables import (
    CLOVERLEAF,
    chains_table,
    curves_table,
    doses_table,
    falsification_table,
    interventions_table,
    mutations_table,
    pairing_table,
    planted_table,
    steered_table,
    tuned_table,
)
from contact_tables import SETTINGS, contacts_table, maps_table

from sae_rna import figures
from sae_rna.analysis.dictionary import by_length, by_measure
from sae_rna.records.structure import ELEMENTS, element_string, pair_table

KNOT = ".[[..(((((]]....)))))"  # a pseudoknot


LONG = "((((" * 15 + "." * 30 + "))))" * 15


def grid(**levels) -> pd.DataFrame:
    """A row for every combination."""
    return pd.MultiIndex.from_product(levels.values(), names=levels).to_frame(index=False)


def layers_table(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for architecture in ("relu-l1", "topk"):
        for layer in range(1, count + 1):
            deciles = np.sort(np.exp(rng.normal(-4, 1, 9)).clip(0, 1))
            row = {"layer": layer, "architecture": architecture, "latents": 512, "retained": 300 + layer}
            row |= {"dead_share": 0.3, "l0": 16.0, "explained_variance": 0.8}
            row["type_selectivity"] = 0.01 * layer if architecture == "topk" else np.nan
            rows.append(row | {f"density_p{10 * i}": value for i, value in enumerate(deciles, 1)})
    return pd.DataFrame(rows)


def training_table(count: int, steps: int) -> pd.DataFrame:
    table = grid(architecture=["topk", "relu-l1"], layer=range(1, count + 1), step=range(steps))
    share = (table.step + 1) / steps
    return table.assign(
        tokens=1024 * (table.step + 1),
        loss=1 / share,
        l0=16.0,
        explained_variance=share,
        dead_share=0.5 * share,
    )


def scores_table(count: int) -> pd.DataFrame:
    """In layer l of either setting base_auroc is .4 + .05 l (the sixth at most), its interval .04 wide; the
    null reaches .58."""
    table = grid(setting=SETTINGS, layer=range(1, count + 1), element=list(ELEMENTS))
    score = 0.4 + 0.05 * table.layer.clip(upper=6)
    bounds = {"base_auroc_low": score - 0.02, "base_auroc_high": score + 0.02}
    return table.assign(
        feature=7, base_auroc=score, **bounds, null_p95=0.58, f1=0.6, base_f1=0.25, elements=1200
    ).assign(explained=False)


def sparse_probe_table() -> pd.DataFrame:
    sources = ["latents", "neurons", "principal components"]
    table = grid(setting=SETTINGS, element=["S", "H"], source=sources, k=[1, 2, 4, 8, 128])
    return table.assign(columns=128, base_auroc=0.55 + 0.03 * np.log2(table.k))


def readers_table(count: int) -> pd.DataFrame:
    sources = ["language model", "same architecture, random weights", "best single feature"]
    table = grid(setting=SETTINGS, source=sources, layer=range(1, count + 1))
    table["base_auroc"] = 0.55 + 0.2 * table.layer / count
    single = table.source == sources[2]
    for side, move in (("low", -0.02), ("high", 0.02)):
        table[f"base_auroc_{side}"] = (table.base_auroc + move).where(single)
    across = {"setting": SETTINGS, "source": "one-hot window of 11 nt", "base_auroc": [0.61, 0.6]}
    return pd.concat([pd.DataFrame(across), table], ignore_index=True).assign(auroc=0.7)


def types_table(layers: int, types: int = 6, features: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    names = [f"type {i}" for i in range(types)]
    table = grid(layer=range(1, layers + 1), feature=range(features), type=names)
    table["activation"] = rng.random(len(table)).round(4)
    table["rank"] = table.groupby(["layer", "type"]).activation.rank(ascending=False).astype(int)
    return table.assign(explained=False, survives="")


def tracks_table(structure: str, record: str = "RNA one") -> pd.DataFrame:
    rng = np.random.default_rng(2)
    length = len(structure)
    return pd.DataFrame(
        {
            "record": record,
            "rna": f"{record} of a family",
            "place": "best of 3 RNAs",
            "position": range(1, length + 1),
            "base": list("ACGU" * length)[:length],
            "bracket": list(structure),
        }
        | {
            "element": list(element_string(structure)),
            "activation": rng.random(length),
            "partner": pair_table(structure) + 1,
        }
        | {"feature": 2053, "layer": 18, "concept": "stem", "fault": ""}
    )


def masked_table() -> pd.DataFrame:
    predictors, positions = ["model", "Markov", "most common base"], ["all", "paired", "unpaired"]
    table = grid(set=["held-out families", "natural"], predictor=predictors, positions=positions)
    return table.assign(tokens=1000, accuracy=np.linspace(0.2, 0.7, len(table)))


SOURCES = ["SAE", "neurons", "PCA", "ICA", "one-hot window"]


def controls_table() -> pd.DataFrame:
    """The best control of "GC pair" is PCA, .05 behind the dictionary; of "AU pair" neurons, .02 ahead."""
    scores = {
        ("element", "stem"): [0.7, 0.6, 0.56, 0.55, np.nan],
        ("element", "bulge"): [0.51, np.nan, np.nan, np.nan, np.nan],
        ("pair", "GC pair"): [0.65, 0.53, 0.6, 0.55, 0.49],
        ("pair", "AU pair"): [0.58, 0.6, 0.51, 0.52, 0.53],
    }
    table = pd.DataFrame(
        {
            "setting": "unseen families",
            "group": group,
            "concept": concept,
            "source": source,
            "layer": np.nan if source == "one-hot window" else 3,
            "base_auroc": score,
        }
        for (group, concept), row in scores.items()
        for source, score in zip(SOURCES, row)
    )
    table["f1"], own = 1 - table.base_auroc, table.source == "SAE"
    table[["base_auroc_low", "base_auroc_high"]] = np.column_stack(
        [table.base_auroc - 0.03, table.base_auroc + 0.02]
    )
    table = table.assign(null_p95=np.where(own, 0.55, np.nan), base_f1=0.15, f1_low=np.nan, f1_high=np.nan)
    leads = {"stem": (0.1, 0.05, 0.15), "GC pair": (0.05, -0.01, 0.1), "AU pair": (-0.02, -0.03, -0.01)}
    told = [
        leads.get(concept, (np.nan,) * 3) if of else (np.nan,) * 3 for concept, of in zip(table.concept, own)
    ]
    table[["lead", "lead_low", "lead_high"]] = told
    return table


def two_settings() -> pd.DataFrame:
    """`controls_table` in both settings: of seen families all is .05 higher, but for the leads."""
    table, scores = controls_table(), ["base_auroc", "base_auroc_low", "base_auroc_high"]
    seen = table.assign(setting="seen families", **table[scores] + 0.05)
    return pd.concat([seen, table], ignore_index=True)


def confounds_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "concept": ["stem", "bulge", "GC pair"],
            "layer": [1, 5, 6],
            "feature": [7, 184, 1023],
            "base_auroc": [0.7, 0.55, 0.6],
        }
        | {"confound_base_auroc": [0.52, 0.56, 0.5], "r2": [0.1, -0.25, np.nan]}
        | {
            "setting": ["seen families", "seen families", "unseen families"],
            "explained": [False, True, False],
        }
    )


def fidelity_table(
    layers: int, variants: tuple[str, ...] = ("mean ablation", "PCA, k components", "relu-l1", "topk")
) -> pd.DataFrame:
    table = grid(layer=range(1, layers + 1), variant=variants)
    recovered = np.linspace(-0.8, 1.2, len(table))
    table = table.assign(
        loss_recovered=recovered,
        low=recovered - 0.1,
        high=recovered + 0.1,
        kl=np.geomspace(1e-4, 0.1, len(table)),
    )
    return table.assign(kl_low=table.kl / 1.2, kl_high=table.kl * 1.2, l0=16.0, explained_variance=0.8)


def recurrence_table(layers: int) -> pd.DataFrame:
    table = grid(layer=range(1, layers + 1), comparison=["other seed", "other size"])
    return table.assign(
        share=np.linspace(0.2, 0.6, len(table)),
        share_null=0.01,
        median_cosine=np.linspace(-0.1, 0.7, len(table)),
        null_cosine=0.45,
    )


def effects_table(layers: int) -> pd.DataFrame:
    table = grid(setting=SETTINGS, layer=range(1, layers + 1), type=["tRNA", "5S rRNA", "snoRNA"])
    surviving = {"tRNA": 3, "5S rRNA": 140, "snoRNA": 0}
    table["surviving"] = table.type.map(surviving) + table.layer * (table.type != "snoRNA")
    return table.assign(tested=np.where(table.type == "snoRNA", 0, 400))


def probe_table() -> pd.DataFrame:
    names = [
        "length and GC content",
        "3-mer frequencies",
        "mean hidden state, layer 3",
        "SAE features, layer 3",
    ]
    table = grid(setting=SETTINGS, representation=names)
    accuracy = np.linspace(0.2, 0.6, len(table))
    table = table.assign(balanced_accuracy=accuracy, low=accuracy - 0.05, high=accuracy + 0.06)
    return table.assign(chance=0.0625, columns=256, nonzero_weights=40)


def sparsity_table(layers: int) -> pd.DataFrame:
    sources = ["language model", "random weights"]
    table = grid(source=sources, layer=range(1, layers + 1), type=["tRNA", "miRNA"])
    table["active"] = 0.4 - 0.01 * table.layer + 0.05 * (table.type == "miRNA")
    return table.assign(rnas=45, selectivity=0.5)


STEPS = pd.DataFrame(
    {
        "step": list("abcdef"),
        "title": "a title",
        "detail": "numbers that fill more than a single line of a box",
    }
)


LENGTHS = pd.DataFrame(
    {"group": ["train", "train", "natural"], "length": [21, 29, 200], "records": [5, 7, 11]}
)


def findings_table(layers: int = 6) -> pd.DataFrame:
    lines = {"autoencoder": 0.7, "best control": 0.72, "chance": 0.52}
    rows = [
        {"setting": setting, "concept": concept, "layer": layer, "line": line, "source": line,
         "base_auroc": score - 0.01 * layer}
        for setting in ("seen families", "unseen families") for concept in ("stem", "hairpin loop")
        for layer in range(1, layers + 1) for line, score in lines.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def dictionaries_table() -> pd.DataFrame:
    names = [("batchtopk", 128, 16), ("batchtopk", 256, 16), ("relu-l1", 256, 50)]
    return pd.DataFrame([
        {"candidate": f"{name}, {latents}", "architecture": name, "latents": latents, "share": share, "l0": l0,
         "explained_variance": 0.8 + 0.1 * share, "kl": 0.1, "pca_variance": 0.7 + l0 / 500, "pca_kl": 0.2,
         "recurring": 0.4, "dead": 0.1 * share, "tokens": 10**6 * share, "stem, unseen families": 0.6}
        for name, latents, l0 in names for share in ((0.5, 1.0, 2.0) if latents == 128 else (1.0,))
    ])  # fmt: skip


def volcano_table() -> pd.DataFrame:
    """41 features of effects from -2 to 2; those of the largest differ, some as a 3-mer does."""
    effect = np.linspace(-2, 2, 41)
    table = pd.DataFrame({"layer": 1 + np.arange(41) % 6, "feature": range(41), "effect": effect})
    table = table.assign(low=effect - 0.5, high=effect + 0.5, p_value=10.0 ** -(2 * effect**2), q_value=0.04)
    words = np.select([effect > 1, effect < -1], ["differs", "differs as a 3-mer does"], "does not differ")
    return table.assign(share_a=0.1, share_b=0.2, kmer="GAG", left=effect / 2, verdict=words)


def places_table() -> pd.DataFrame:
    """Two features that fire in one tenth and one element each, one of them a thousandth as often."""
    table = grid(feature=[3, 4], place=[*map(str, range(1, 11)), "stem", "hairpin loop"]).assign(layer=2)
    table["part"] = np.where(table.place.str.isdigit(), "tenth of the RNA", "structural element")
    share = np.where(table.place.isin(["3", "stem"]), 0.5, 0.0) * np.where(table.feature == 3, 1, 1e-3)
    return table.assign(share_a=share, share_b=0.0)


def funnel_table() -> pd.DataFrame:
    left = [300, 100, 20, 0]
    rows = {"step": [f"step {n}" for n in range(4)], "rule": "a rule", "left": left}
    return pd.DataFrame(rows).assign(fell=[100, 200, 80, 20])


def logos_table(features: int = 3) -> pd.DataFrame:
    """Position 0 is G alone, all others tell nothing."""
    table = grid(feature=range(features), position=range(-5, 6), base=list("ACGU"))
    share = np.where(table.position == 0, table.base == "G", 0.25)
    return table.assign(layer=4, share=share, reading="fires on G", families=12)


def relations_table(pairs: int = 4) -> pd.DataFrame:
    """Every second pair is of one type; the first family is in all of them."""
    number = np.arange(pairs)
    table = pd.DataFrame({"family_a": "RF0", "name_a": "first family", "type_a": "tRNA"}, index=number)
    table["family_b"], table["name_b"] = [f"RF{n + 1}" for n in number], [f"family {n + 1}" for n in number]
    return table.assign(type_b=np.where(number % 2, "rRNA", "tRNA"), similarity=0.5, q_value=0.01)


CHARTS = {
    "lineage": lambda: figures.lineage(chains_table()),
    "funnel": lambda: figures.funnel(funnel_table()),
    "lead logos": lambda: figures.lead_logos(logos_table()),
    "relations": lambda: figures.relations(relations_table(), relations_table(1)),
    "volcano": lambda: figures.volcano(volcano_table(), "tRNA", "rRNA"),
    "firing places": lambda: figures.firing_places(places_table(), "tRNA", "rRNA"),
    "interventions": lambda: figures.interventions(interventions_table()),
    "dose response": lambda: figures.dose_response(doses_table()),
    "logo": lambda: figures.logo(steered_table()),
    "tuned methods": lambda: figures.tuned_methods(tuned_table()),
    "tuned examples": lambda: figures.tuned_examples(curves_table()),
    "pairing effects": lambda: figures.pairing_effects(pairing_table()),
    "mutation map": lambda: figures.mutation_map(mutations_table()),
    "planted latents": lambda: figures.planted_latents(planted_table()),
    "planted latents of 11": lambda: figures.planted_latents(
        planted_table(map("dictionary {}".format, range(11)))
    ),
    "falsification": lambda: figures.falsification(falsification_table()),
    "falsification in one setting": lambda: figures.falsification(
        falsification_table()[lambda table: table.setting == SETTINGS[0]]
    ),
    "findings": lambda: figures.findings(findings_table()),
    "findings of 33 layers": lambda: figures.findings(findings_table(33)),
    "dictionary frontier": lambda: figures.dictionary_frontier(
        dictionaries_table()[lambda table: table.share == 1]
    ),
    "dictionary features": lambda: figures.dictionary_features(by_measure(dictionaries_table())),
    "dictionary training": lambda: figures.dictionary_training(by_length(dictionaries_table())),
    "contact maps": lambda: figures.contact_maps(maps_table()),
    "contact precision": lambda: figures.contact_precision(contacts_table()),
    "overview": lambda: figures.overview(STEPS),
    "overview of two": lambda: figures.overview(STEPS.head(2)),
    "retained features": lambda: figures.retained_features(layers_table(6)),
    "retained features of 33 layers": lambda: figures.retained_features(layers_table(33)),
    "layer sparsity": lambda: figures.layer_sparsity(layers_table(6), "topk"),
    "layer sparsity of 33 layers": lambda: figures.layer_sparsity(layers_table(33), "topk"),
    "type sparsity": lambda: figures.type_sparsity(sparsity_table(6)),
    "type sparsity of 33 layers": lambda: figures.type_sparsity(sparsity_table(33)),
    "training": lambda: figures.training(training_table(6, 20)),
    "element scores": lambda: figures.element_scores(scores_table(6)),
    "element scores of one setting": lambda: figures.element_scores(
        scores_table(6)[lambda table: table.setting == SETTINGS[1]]
    ),
    "sparse probe": lambda: figures.sparse_probe(sparse_probe_table()),
    "stem readers": lambda: figures.stem_readers(readers_table(6)),
    "stem readers of 33 layers": lambda: figures.stem_readers(readers_table(33)),
    "tracks of a feature that fails": lambda: figures.feature_tracks(
        tracks_table(CLOVERLEAF).assign(fault="its confounds explain it")
    ),
    "element scores of 33 layers": lambda: figures.element_scores(scores_table(33)),
    "type features": lambda: figures.type_features(types_table(6), [1, 4, 6]),
    "tracks": lambda: figures.feature_tracks(
        pd.concat([tracks_table(CLOVERLEAF), tracks_table(LONG, "RNA two")])
    ),
    "masked accuracy": lambda: figures.masked_accuracy(masked_table()),
    "lengths": lambda: figures.length_distribution(LENGTHS),
    "element scores with explained ones": lambda: figures.element_scores(
        scores_table(6).assign(explained=True)
    ),
    "type features with explained ones": lambda: figures.type_features(
        types_table(3).assign(explained=True), [1, 2, 3]
    ),
    "type features of a layer that has none": lambda: figures.type_features(types_table(3), [2, 3, 4]),
    "type probe": lambda: figures.type_probe(probe_table()),
    "controls": lambda: figures.controls(controls_table()),
    "controls by F1": lambda: figures.controls(controls_table(), "f1"),
    "controls in two settings": lambda: figures.controls(two_settings()),
    "confounds": lambda: figures.confounds(confounds_table()),
    "fidelity of one layer": lambda: figures.fidelity(fidelity_table(1)),
    "fidelity of 6 layers": lambda: figures.fidelity(fidelity_table(6)),
    "fidelity of 33 layers": lambda: figures.fidelity(fidelity_table(33)),
    "recurrence of one layer": lambda: figures.recurrence(recurrence_table(1)),
    "recurrence of 33 layers": lambda: figures.recurrence(recurrence_table(33)),
    "type effects of one layer": lambda: figures.type_effects(effects_table(1)),
    "type effects of 33 layers": lambda: figures.type_effects(effects_table(33)),
}


def svg_of(chart: alt.TopLevelMixin) -> ElementTree.Element:
    return ElementTree.fromstring(vl_convert.vegalite_to_svg(chart.to_dict(), vl_version="6.4"))


@functools.cache
def svg_named(name: str) -> ElementTree.Element:
    return svg_of(CHARTS[name]())
