"""The tables of the book and the numbers of its captions, derived from a study. Nothing here is expensive."""

import numpy as np
import pandas as pd
from multimolecule.utils.rna.secondary_structure import RnaSecondaryStructureTopology, annotate_structure

from sae_rna.analysis import claims, evidence
from sae_rna.analysis import recurrence as stability
from sae_rna.analysis.confounds import TOKEN_GROUPS as CONFOUNDS
from sae_rna.analysis.statistics import selectivity
from sae_rna.records.structure import ELEMENTS
from sae_rna.study import Study

SPLITS = ("train", "selection", "heldout", "natural")


def overview(study: Study) -> tuple[pd.DataFrame, dict]:
    """Boxes of fig-overview (step, title, detail) and the numbers of its caption."""
    p, model = study.parameters, study.model
    types, structures = study.type_records, study.structure_records
    config = study.autoencoder(study.layers[0]).config
    facts = config.training
    evaluated = types[types.split != "train"]
    layers = study.layer_table()
    retained = layers[layers.architecture == p.architecture].retained
    scores = study.element_scores()
    rows = [
        (
            "sequences",
            "RNA records",
            f"{facts['sequences']:,} to train on, {len(evaluated):,} of known type and {len(structures):,} of known structure to evaluate",
        ),
        (
            "hidden states",
            "language model",
            f"{model.source}: {model.blocks} blocks, width {model.width:,}, {model.parameter_count:,} parameters",
        ),
        (
            "standardised tokens",
            "activations",
            f"{facts['tokens']:,} nucleotides x {len(study.layers)} layers, each dimension to mean 0 and variance 1",
        ),
        (
            "sparse codes",
            "sparse autoencoders",
            f"{config.latents:,} latents a layer; {', '.join(p.architectures)}; the figures show {p.architecture}",
        ),
        (
            "features",
            "retained features",
            f"{retained.min():,} to {retained.max():,} a layer fire in {p.min_sequences} or more RNAs",
        ),
        (
            "concepts",
            "annotations",
            f"{scores.element.nunique()} structural elements, {evaluated.type.nunique()} RNA types; "
            "chosen on selection, scored on held-out families",
        ),
    ]
    numbers = {
        "layers": len(study.layers),
        "training_tokens": facts["tokens"],
        "evaluation_rnas": len(evaluated) + len(structures),
    }
    return pd.DataFrame(rows, columns=["step", "title", "detail"]), numbers


def data(study: Study) -> tuple[pd.DataFrame, dict]:
    """tab-data: the records of this run by use and split."""
    rows = []
    for use, records in (("types", study.type_records), ("structures", study.structure_records)):
        for split in [split for split in SPLITS if (records.split == split).any()]:
            part = records[records.split == split]
            element = "".join(part.element) if "element" in part else ""
            rows.append(
                {
                    "use": use,
                    "split": split,
                    "RNAs": len(part),
                    "families": part.family.nunique() if "family" in part else pd.NA,
                    "types": part.type.nunique() if "type" in part else pd.NA,
                    "nucleotides": int(part.sequence.str.len().sum()),
                    "median length": int(part.sequence.str.len().median()),
                    "structures": study.structure_source if element else "–",
                    "in stems": element.count("S") / len(element) if element else np.nan,
                }
            )
    table = pd.DataFrame(rows).astype({"families": "Int64", "types": "Int64"})
    return table, {"total": int(table.RNAs.sum()), "longest": study.parameters.longest}


def lengths(study: Study) -> pd.DataFrame:
    """Group, length and count of the RNAs of known structure."""
    records = study.structure_records
    return (
        records.assign(group=records.split, length=records.sequence.str.len())
        .groupby(["group", "length"])
        .size()
        .rename("records")
        .reset_index()
    )


def element_agreement(study: Study) -> tuple[pd.DataFrame, dict]:
    """Cross table of forgi's elements (rows) and bpRNA's letters (columns) in shares of each row, and overall agreement.

    bpRNA's letters are the data set's own where it has them (`structural_annotation`), else multimolecule's bpRNA rules.
    """
    records = study.structure_records
    if "structural_annotation" in records:
        theirs = "".join(records.structural_annotation)
    else:
        theirs = "".join(
            annotate_structure(RnaSecondaryStructureTopology(row.sequence, row.secondary_structure))
            for row in records.itertuples()
        )
    ours = np.array(list("".join(records.element)))
    cross = pd.crosstab(ours, np.array(list(theirs)), normalize="index").reindex(
        [letter for letter in ELEMENTS if letter in ours]
    )
    cross.index = [f"{letter} ({ELEMENTS[letter]})" for letter in cross.index]
    agreed = float((ours == np.array(list(theirs))).mean())
    return cross.rename_axis("element").reset_index(), {
        "rnas": len(records),
        "agreement": agreed,
        "nucleotides": len(ours),
        "structures": study.structure_source,
    }


def models(study: Study) -> tuple[pd.DataFrame, dict]:
    """tab-models: the language model and both stacks of autoencoders."""
    model = study.model
    rows = [
        {
            "model": model.source,
            "kind": f"language model ({type(model.model).__name__})",
            "layers": str(model.blocks),
            "width": model.width,
            "latents": pd.NA,
            "sparsity": "–",
            "parameters": model.parameter_count,
            "nucleotides trained on": "see the model card",
        }
    ]
    for variant in study.parameters.main:
        stacks = [study.autoencoders(variant, group) for group in study.groups]
        config = stacks[0].config
        weight, kind = config.members[0].sparsity, config.kind
        error = f", squared error {'averaged' if kind.mean_error else 'summed'}"
        sparsity = (
            f"k = {weight:g}"
            if kind.penalty == "auxk"
            else f"lambda = {weight:g} ({kind.penalty.upper()}){error}"
        )
        rows.append(
            {
                "model": variant.architecture,
                "kind": "sparse autoencoders",
                "layers": ", ".join(map(str, study.layers)),
                "width": config.width,
                "latents": config.latents,
                "sparsity": sparsity,
                "parameters": sum(p.numel() for stack in stacks for p in stack.parameters()),
                "nucleotides trained on": f"{config.training['tokens']:,} x {config.training['epochs']:g}",
            }
        )
    numbers = {
        "parameters": model.parameter_count,
        "blocks": model.blocks,
        "width": model.width,
        "latents": config.latents,
    }
    return pd.DataFrame(rows).astype({"latents": "Int64"}), numbers


def masked_by_position(masked: pd.DataFrame) -> pd.DataFrame:
    """`Study.masked_table` as fig-masked-accuracy takes it: one row per set, predictor and kind of position."""
    parts = [masked.assign(positions="all", tokens=masked.bases)]
    if "paired" in masked:
        parts.append(masked.assign(positions="paired", accuracy=masked.paired, tokens=masked.paired_bases))
        parts.append(
            masked.assign(
                positions="unpaired", accuracy=masked.unpaired, tokens=masked.bases - masked.paired_bases
            )
        )
    return pd.concat(parts, ignore_index=True)[["set", "predictor", "positions", "accuracy", "tokens"]]


def probes(study: Study) -> tuple[pd.DataFrame, dict]:
    """tab-probe: how well stems are told from everything else by linear probes and by the best single feature of each layer."""
    linear = study.probe_table()
    single = study.single_feature_auroc().assign(
        source=f"best single feature ({study.parameters.architecture})"
    )
    best = linear.groupby("source").auroc.max()
    window = best[best.index.str.startswith("one-hot")].iloc[0]
    numbers = {
        "tokens": int(linear.tokens.iloc[0]),
        "best": best["language model"],
        "random": best["same architecture, random weights"],
        "window": window,
        "single": single.auroc.max(),
        "structures": study.structure_source,
    }
    table = pd.concat([linear, single], ignore_index=True)[["source", "layer", "auroc"]]
    return table.astype({"layer": "Int64"}), numbers


def training_numbers(study: Study) -> dict:
    """Numbers of fig-training's caption."""
    facts = study.autoencoder(study.layers[0]).config.training
    return {"tokens": facts["tokens"], "rnas": facts["sequences"], "epochs": facts["epochs"]}


def training_end(study: Study) -> tuple[pd.DataFrame, dict]:
    """The last reported metrics of every member, and over how many tokens they are means."""
    table = study.training_table()
    steps = sorted(table.step.unique())
    window = (steps[-1] - (steps[-2] if len(steps) > 1 else 0)) * study.parameters.batch
    end = table[table.step == steps[-1]].sort_values(["architecture", "layer"])
    return end[["architecture", "layer", "l0", "explained_variance", "dead_share", "loss"]], {
        "window": int(window)
    }


def layer_numbers(study: Study, layers: pd.DataFrame) -> dict:
    """Numbers of the captions of fig-retained-features and fig-layer-sparsity."""
    records = study.types().records
    return {
        "min_sequences": study.parameters.min_sequences,
        "rnas": int(layers.sequences.iloc[0]),
        "tokens": int(layers.tokens.iloc[0]),
        "latents": int(layers.latents.iloc[0]),
        "types": records.type.nunique(),
    }


def element_numbers(study: Study, scores: pd.DataFrame) -> dict:
    """Numbers of fig-element-scores' caption."""
    heldout = study.structure_records[study.structure_records.split == "heldout"]
    return {"tokens": int(heldout.sequence.str.len().sum()), "rnas": len(heldout)} | {
        "shuffles": study.parameters.shuffles,
        "structures": study.structure_source,
    }


def best_per_element(scores: pd.DataFrame) -> tuple[pd.DataFrame, dict]:
    """For each element the layer and feature with the best F1 on the selection split, and how many beat both controls."""
    best = evidence.best_elements(scores)
    beat = int((best.f1 > best[["base_f1", "null_p95"]].max(axis=1)).sum())
    columns = [
        "element",
        "layer",
        "feature",
        "f1",
        "base_f1",
        "null_p95",
        "precision",
        "base_rate",
        "auroc",
        "explained",
    ]
    return best[[column for column in columns if column in best]].assign(
        element=best.element.map(ELEMENTS)
    ), {"elements": len(best), "beat": beat}


def natural(study: Study) -> tuple[pd.DataFrame, dict]:
    """The best features per element, scored on the natural RNAs, or on the selection split where the data have no natural one."""
    records = study.structure_records
    split = "natural" if (records.split == "natural").any() else "selection"
    table, numbers = best_per_element(evidence.mark_explained(study, study.element_scores(split)))
    tokens = int(records[records.split == split].sequence.str.len().sum())
    return table, numbers | {"split": split, "tokens": tokens, "structures": study.structure_source}


def best_feature(study: Study, element: str) -> pd.Series:
    """`Study.best_feature` with `explained`."""
    best, scores = study.best_feature(element), element_scores(study)
    mine = scores[(scores.element == element) & (scores.layer == best.layer)]
    return pd.concat([best, pd.Series({"explained": bool(mine.explained.iloc[0])}, dtype=object)])


def tracks(study: Study, best: pd.Series, count: int) -> pd.DataFrame:
    """`Study.tracks` of `count` example RNAs, with `explained`."""
    return study.tracks(best, study.example_records(best, count)).assign(explained=best.explained)


def feature_numbers(study: Study, best: pd.Series, tracks: pd.DataFrame) -> dict:
    """Numbers of the captions of fig-stem-feature and fig-hairpin-feature."""
    names = " and ".join(dict.fromkeys(tracks.record))
    facts = {
        "feature": int(best.feature),
        "layer": int(best.layer),
        "names": names,
        "structures": study.structure_source,
    }
    return facts | {
        name: float(best[name]) for name in ("f1", "base_f1", "null_p95", "precision", "base_rate", "auroc")
    }


def first_middle_last(study: Study) -> list[int]:
    """The layers of Figure 5: the first studied, the middle one and the last."""
    layers = study.layers
    return sorted({layers[0], layers[len(layers) // 2], layers[-1]})


def type_numbers(study: Study) -> dict:
    """Numbers of fig-type-features' caption."""
    records = study.types().records
    return {"top_k": study.parameters.top_k, "types": records.type.nunique(), "rnas": len(records)}


def best_per_type(study: Study) -> tuple[pd.DataFrame, dict]:
    """For each RNA type the layer and feature with the best selection AUROC, how many beat the null, and which ones are explained."""
    scores = study.type_scores()
    best = scores.loc[scores.groupby("type").selection_auroc.idxmax()].sort_values("auroc", ascending=False)
    best = evidence.mark_types(study, best, "type-scores")
    columns = [
        "type",
        "layer",
        "feature",
        "selection_auroc",
        "auroc",
        "null_p95",
        "f1",
        "base_rate",
        "sequences",
        "explained",
    ]
    return best[columns], {"types": len(best), "beat": int((best.auroc > best.null_p95).sum())}


def top_features(study: Study, layer: int) -> pd.DataFrame:
    """tab-top-features, with what explains them."""
    table = study.top_features(layer)
    elements, types = (table[table.kind == kind] for kind in ("element", "type"))
    marked = [
        evidence.mark_elements(study, elements, "top-elements"),
        evidence.mark_types(study, types.rename(columns={"label": "type"}), "top-types"),
    ]
    return pd.concat([marked[0], marked[1].rename(columns={"type": "label"})], ignore_index=True)


# -- evidence ------------------------------------------------------------------------------------------------------------


def element_scores(study: Study) -> pd.DataFrame:
    """`Study.element_scores`, with `explained` for features that their confounds explain."""
    return evidence.mark_explained(study, study.element_scores())


def controls(study: Study) -> tuple[pd.DataFrame, dict]:
    """The table of fig-controls: of each source and concept the best layer, the SAE first; and the numbers of its caption."""
    best = evidence.best_of(evidence.concept_table(study))
    held = study.structure_records[study.structure_records.split == "heldout"]
    led = evidence.leads(best)
    numbers = {
        "concepts": len(led),
        "controls": best.source.nunique() - 1,
        "ahead": int((led.lead > 0).sum()),
        "clearly": int((led.lead_low > 0).sum()),
        "rnas": len(held),
        "families": held.family.nunique() if "family" in held else len(held),
        "bootstraps": evidence.BOOTSTRAPS,
        "shuffles": study.parameters.shuffles,
        "structures": study.structure_source,
    }
    return best.drop(columns="f1_resampled"), numbers


def control_scores(study: Study) -> tuple[pd.DataFrame, dict]:
    """tab-controls: every concept's best feature beside its best control, and whether it is a discovery."""
    led = evidence.leads(evidence.best_of(evidence.concept_table(study)))
    names = {"lead_low": "from", "lead_high": "to", "discovery": "found"}
    table = (
        led.assign(chance=led[["null_p95", "base_f1"]].max(axis=1))
        .rename(columns=names)
        .round({"lead": 3, "from": 3, "to": 3})
    )
    columns = ["concept", "layer", "feature", "f1", "chance", "found", "control", "lead", "from", "to"]
    return table[columns], {
        "discoveries": int(led.discovery.sum()),
        "concepts": len(led),
        "bootstraps": evidence.BOOTSTRAPS,
    }


def confounds(study: Study) -> tuple[pd.DataFrame, dict]:
    """The table of fig-confounds: the best feature of each element and what its confounds predict."""
    scores = element_scores(study)
    best = evidence.best_elements(scores)
    table = best.assign(concept=best.element.map(ELEMENTS))
    numbers = {
        "explained": int(best.explained.sum()),
        "elements": len(best),
        "all_explained": int(scores.explained.sum()),
    }
    return table, numbers | {"features": len(scores), "structures": study.structure_source}


def confound_groups(study: Study) -> pd.DataFrame:
    """tab-confounds: the same features, and how much of each a single group of covariates explains."""
    found = evidence.confound_groups(study)
    table = found.assign(element=found.element.map(ELEMENTS)).rename(columns={"r2": "R2 of all"})
    columns = {f"r2_{group}": {"composition": "GC and length"}.get(group, group) for group in CONFOUNDS}
    return table.rename(columns=columns)[["element", "layer", "feature", "R2 of all", *columns.values()]]


def type_effects(study: Study) -> tuple[pd.DataFrame, dict]:
    """The table of fig-type-effects: per layer and type how many features survive; and the same of the random model in numbers."""
    table = evidence.type_table(study)
    rows = []
    for (source, layer, kind), part in table.groupby(["source", "layer", "type"], sort=False):
        surviving = selectivity.surviving(part)[0].feature.nunique()
        rows.append(
            {
                "source": source,
                "layer": layer,
                "type": kind,
                "surviving": surviving,
                "tested": part.feature.nunique(),
            }
        )
    counts = pd.DataFrame(rows, columns=["source", "layer", "type", "surviving", "tested"])
    random = counts.source == evidence.RANDOM_MODEL
    own = table[table.source != evidence.RANDOM_MODEL]
    numbers = {
        "pairs": len(own),
        "significant": int(own.significant.sum()),
        "replicated": int(own.replicates.sum()),
        "surviving": int(counts.surviving[~random].sum()),
        "random_surviving": int(counts.surviving[random].sum()),
        "types": own.type.nunique(),
    }
    return counts[~random].drop(columns="source"), numbers


def surviving_types(study: Study, layers: list[int]) -> tuple[pd.DataFrame, dict]:
    """Figure 5's table: features that survive all tests, marked where their confounds explain them; and how many do not survive."""
    parts, rest = [], 0
    for layer in layers:
        shown, left_out = evidence.shown_types(study, layer)
        parts.append(shown.assign(explained=shown.feature.isin(evidence.shown_types_explained(study, layer))))
        rest += left_out
    table = pd.concat(parts, ignore_index=True)
    shown = table[["layer", "feature"]].drop_duplicates()
    numbers = {
        "shown": len(shown),
        "left_out": rest,
        "explained": int(table[table.explained].groupby("layer").feature.nunique().sum()),
    }
    return table, numbers | type_numbers(study) | {"layers": ", ".join(f"L{layer}" for layer in layers)}


def recurrence(study: Study) -> tuple[pd.DataFrame, dict]:
    """The table of fig-recurrence, means over the other seeds."""
    pairs, _ = evidence.recurrence_table(study)
    columns = {
        "share": "recur",
        "median_cosine": "median_cosine",
        "null_cosine": "null_cosine",
        "by_decoder": "recur_by_decoder",
    }
    means = (
        pairs.groupby(["layer", "comparison"], sort=False)[list(columns.values())]
        .mean()
        .rename(columns={v: k for k, v in columns.items()})
    )
    means = means.reset_index()
    chance = means[means.comparison == "a random dictionary"].set_index("layer").by_decoder
    table = means[means.comparison != "a random dictionary"]
    table = table.assign(share_null=table.layer.map(chance))
    p = study.parameters
    again = table[table.comparison == "another seed"]
    rnas = min(evidence.RECURRENCE_RNAS, (study.structure_records.split == "selection").sum())
    numbers = {
        "rnas": int(rnas),
        "seeds": p.replicates + 1,
        "large": p.expansion * study.model.width,
        "small": p.narrow * study.model.width,
    }
    return table, numbers | {
        "lowest": again.share.min(),
        "highest": again.share.max(),
        "criterion": stability.RECURS,
    }


def recurring_concepts(study: Study) -> tuple[pd.DataFrame, dict]:
    """tab-recurring-concepts: do features that recur stand for concepts more often?"""
    _, shares = evidence.recurrence_table(study)
    return shares[["layer", *shares.columns.drop("layer")]], {"layers": shares.layer.nunique()}


def fidelity(study: Study) -> tuple[pd.DataFrame, dict]:
    """The table of fig-fidelity: autoencoders by architecture, mean ablation, and components of the shown architecture's L0."""
    table, shown = evidence.fidelity_table(study), study.parameters.architecture
    table = table[(table.variant == "autoencoder") | table.architecture.isin(["", shown])]
    table = table.assign(variant=table.architecture.where(table.variant == "autoencoder", table.variant))
    own = table[table.variant == shown]
    numbers = {
        "rnas": int(table.sequences.iloc[0]),
        "positions": int(table.positions.iloc[0]),
        "cross_entropy": table.ce_lm.iloc[0],
        "missing": int(own.loss_recovered.isna().sum()),
        "shown": shown,
    }
    return table.drop(columns=["architecture", "reason"]), numbers


def findings(study: Study) -> tuple[pd.DataFrame, dict]:
    """tab-claims: what was found and in the control, in words, the verdict and its rule."""
    table = claims.table(evidence.findings(study))
    numbers = {
        "claims": len(table),
        **{name: int((table.verdict == verdict).sum()) for name, verdict in _VERDICTS.items()},
    }
    trends = table.rule == claims.TREND
    words = {
        "claim": table.claim,
        "verdict": table.verdict,
        "found": table.measured + _in_words(table.found, trends),
        "control": table.control + _in_words(table.control_found, trends),
        "why": table.why,
        "rule": table.rule,
    }
    return pd.DataFrame(words), numbers


def _in_words(values: pd.Series, trends: pd.Series) -> pd.Series:
    words = []
    for value, trend in zip(values, trends):
        number = f"{value:.0f}" if value % 1 == 0 and not trend else f"{value:.2f}"
        words.append("" if np.isnan(value) else f": rank correlation {number}" if trend else f": {number}")
    return pd.Series(words)


_VERDICTS = {"hold": claims.HOLDS, "weakly": claims.WEAKLY, "fail": claims.NOT, "unknown": claims.UNKNOWN}
