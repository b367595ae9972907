"""The tables of the book and the numbers of its captions, derived from a study. Nothing here is expensive."""

import numpy as np
import pandas as pd
from multimolecule.utils.rna.secondary_structure import RnaSecondaryStructureTopology, annotate_structure

from sae_rna.structure import ELEMENTS
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
            f"{model.source}: {model.layers} blocks, width {model.width:,}, {model.parameters:,} parameters",
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
        ("features", "retained features", f"{retained.min():,} to {retained.max():,} a layer fire in {p.min_sequences} or more RNAs"),
        (
            "concepts",
            "annotations",
            f"{scores.element.nunique()} structural elements, {evaluated.type.nunique()} RNA types; "
            "chosen on selection, scored on held-out families",
        ),
    ]
    numbers = {"layers": len(study.layers), "training_tokens": facts["tokens"], "evaluation_rnas": len(evaluated) + len(structures)}
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
            annotate_structure(RnaSecondaryStructureTopology(row.sequence, row.secondary_structure)) for row in records.itertuples()
        )
    ours = np.array(list("".join(records.element)))
    cross = pd.crosstab(ours, np.array(list(theirs)), normalize="index").reindex([letter for letter in ELEMENTS if letter in ours])
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
            "layers": str(model.layers),
            "width": model.width,
            "latents": pd.NA,
            "sparsity": "–",
            "parameters": model.parameters,
            "nucleotides trained on": "see the model card",
        }
    ]
    for variant in study.parameters.main:
        stacks = [study.autoencoders(variant, group) for group in study.groups]
        config = stacks[0].config
        weight, kind = config.members[0].sparsity, config.kind
        error = f", squared error {'averaged' if kind.mean_error else 'summed'}"
        sparsity = f"k = {weight:g}" if kind.penalty == "auxk" else f"lambda = {weight:g} ({kind.penalty.upper()}){error}"
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
    numbers = {"parameters": model.parameters, "blocks": model.layers, "width": model.width, "latents": config.latents}
    return pd.DataFrame(rows).astype({"latents": "Int64"}), numbers


def masked_by_position(masked: pd.DataFrame) -> pd.DataFrame:
    """`Study.masked_table` as fig-masked-accuracy takes it: one row per set, predictor and kind of position."""
    parts = [masked.assign(positions="all", tokens=masked.bases)]
    if "paired" in masked:
        parts.append(masked.assign(positions="paired", accuracy=masked.paired, tokens=masked.paired_bases))
        parts.append(masked.assign(positions="unpaired", accuracy=masked.unpaired, tokens=masked.bases - masked.paired_bases))
    return pd.concat(parts, ignore_index=True)[["set", "predictor", "positions", "accuracy", "tokens"]]


def probes(study: Study) -> tuple[pd.DataFrame, dict]:
    """tab-probe: how well stems are told from everything else by linear probes and by the best single feature of each layer."""
    linear = study.probe_table()
    single = study.single_feature_auroc().assign(source=f"best single feature ({study.parameters.architecture})")
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
    return end[["architecture", "layer", "l0", "explained_variance", "dead_share", "loss"]], {"window": int(window)}


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
    best = scores.loc[scores.groupby("element").selection_f1.idxmax()]
    best = best.set_index("element").reindex([letter for letter in ELEMENTS if letter in set(best.element)]).reset_index()
    beat = int((best.f1 > best[["base_f1", "null_p95"]].max(axis=1)).sum())
    columns = ["element", "layer", "feature", "f1", "base_f1", "null_p95", "precision", "base_rate", "auroc"]
    return best[columns].assign(element=best.element.map(ELEMENTS)), {"elements": len(best), "beat": beat}


def natural(study: Study) -> tuple[pd.DataFrame, dict]:
    """The best features per element, scored on the natural RNAs, or on the selection split where the data have no natural one."""
    records = study.structure_records
    split = "natural" if (records.split == "natural").any() else "selection"
    table, numbers = best_per_element(study.element_scores(split))
    tokens = int(records[records.split == split].sequence.str.len().sum())
    return table, numbers | {"split": split, "tokens": tokens, "structures": study.structure_source}


def feature_numbers(study: Study, best: pd.Series, tracks: pd.DataFrame) -> dict:
    """Numbers of the captions of fig-stem-feature and fig-hairpin-feature."""
    names = " and ".join(dict.fromkeys(tracks.record))
    facts = {"feature": int(best.feature), "layer": int(best.layer), "names": names, "structures": study.structure_source}
    return facts | {name: float(best[name]) for name in ("f1", "base_f1", "null_p95", "precision", "base_rate", "auroc")}


def first_middle_last(study: Study) -> list[int]:
    """The layers of Figure 5: the first studied, the middle one and the last."""
    layers = study.layers
    return sorted({layers[0], layers[len(layers) // 2], layers[-1]})


def type_numbers(study: Study) -> dict:
    """Numbers of fig-type-features' caption."""
    records = study.types().records
    return {"top_k": study.parameters.top_k, "types": records.type.nunique(), "rnas": len(records)}


def best_per_type(scores: pd.DataFrame) -> tuple[pd.DataFrame, dict]:
    """For each RNA type the layer and feature with the best selection AUROC, and how many beat the null."""
    best = scores.loc[scores.groupby("type").selection_auroc.idxmax()].sort_values("auroc", ascending=False)
    columns = ["type", "layer", "feature", "selection_auroc", "auroc", "null_p95", "f1", "base_rate", "sequences"]
    return best[columns], {"types": len(best), "beat": int((best.auroc > best.null_p95).sum())}
