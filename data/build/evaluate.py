"""How much a language model knows: the table of the model card, one row a model.

    python data/build/evaluate.py data/rinalmo-nano runs/nano/model --bprna bprna-90.parquet --audit

Masked bases on every set of the records, on real RNAs of bpRNA-90 and a linear probe for stems there (both
only with a table of them, columns ``sequence`` and ``secondary_structure``; they are not shipped), and the
precision of the categorical Jacobian on the 47 RNAs that the package rna-structure-audit ships (``pip install
--no-deps rna-structure-audit``).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from sae_rna.analysis.language_model import (
    choose_masked,
    linear_probes,
    masked_scores,
    model_log_probabilities,
)
from sae_rna.analysis.statistics.contacts import contact_precision, jacobian_contacts, substituted_logits
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.structure import dot_bracket, element_string, split_pseudoknots

SEED = 0


def record_sets(records: pd.DataFrame, per_set: int) -> dict[str, pd.DataFrame]:
    """Sampled and natural RNAs of seen and of unseen families, none of them trained on, and natural tRNA."""
    if "exposure" in records:
        test = records[records.split != "train"]
        sets = {f"{origin}, {exposure} families": test[(test.origin == origin) & (test.exposure == exposure)]
                for exposure in ("seen", "unseen") for origin in ("sampled", "natural")}  # fmt: skip
    else:
        sets = {
            name: records[records.split == name] for name in ("validation", "selection", "heldout", "natural")
        }
        test = records[records.split == "natural"]
    sets["natural tRNA"] = test[(test.origin == "natural") & (test.type == "tRNA")]
    return {
        name: rows.sample(min(per_set, len(rows)), random_state=SEED)
        for name, rows in sets.items()
        if len(rows)
    }


def masked(model: LanguageModel, records: pd.DataFrame) -> dict[str, float]:
    """Accuracy, cross-entropy and accuracy on paired bases, 15 % of the bases hidden at once."""
    sequences = records.sequence.tolist()
    hidden = choose_masked(sequences, SEED)
    guesses = [np.exp(values) for values in model_log_probabilities(model, sequences, hidden)]
    scores = masked_scores(records, hidden, guesses)
    return {"accuracy": scores["accuracy"], "loss": scores["loss"], "paired": scores["paired"]}


def real_rnas(path: Path, count: int) -> pd.DataFrame:
    """RNAs of a table of real structures whose letters are A, C, G, U alone."""
    records = pd.read_parquet(path)
    records = records[records.sequence.str.fullmatch("[ACGU]{20,256}")]
    records = records.sample(min(count, len(records)), random_state=SEED).reset_index(drop=True)
    return records.assign(element=[element_string(text) for text in records.secondary_structure])


def stem_probe(model: LanguageModel, records: pd.DataFrame) -> dict[str, float]:
    """AUROC of the best block's linear probe for stems and of that on a window of bases: one half fits, the
    other scores."""
    half = len(records) // 2
    halves = records.assign(split=["selection"] * half + ["heldout"] * (len(records) - half))
    table = linear_probes({"model": model}, halves, list(range(1, model.blocks + 1)), SEED, rnas=half + 1)
    window, states = table[table.source != "model"], table[table.source == "model"]
    return {"windows": window.auroc.max(), "best block": states.auroc.max()}


def audit_rnas() -> pd.DataFrame:
    """The 47 RNAs of rna-structure-audit, one Rfam seed member a family, with their nested structures."""
    try:
        from rna_structure_audit.data import load_families
    except ImportError as error:
        raise ImportError(
            "the Jacobian is scored on what it ships: pip install --no-deps rna-structure-audit"
        ) from error
    rnas = pd.DataFrame(load_families())
    nested = [dot_bracket(split_pseudoknots(text)[0]) for text in rnas.dot_bracket]
    return rnas.assign(sequence=rnas.sequence.str.upper().str.replace("T", "U"), secondary_structure=nested)


def evaluate(
    folder: str, records: pd.DataFrame, per_set: int, bprna: pd.DataFrame | None, audit: bool
) -> dict:
    """All scores of one model."""
    model = LanguageModel.load(folder, masked=True)
    scores = {name: masked(model, rows) for name, rows in record_sets(records, per_set).items()}
    if bprna is not None:
        scores |= {
            "bpRNA-90": masked(model, bprna),
            "stem probe": stem_probe(LanguageModel.load(folder), bprna),
        }
    if audit:
        rnas = audit_rnas()
        precision = [contact_precision(jacobian_contacts(substituted_logits(model, sequence)), structure)
                     for sequence, structure in zip(rnas.sequence, rnas.secondary_structure)]  # fmt: skip
        scores["Jacobian"] = {"precision": float(np.mean(precision)), "RNAs": len(precision)}
    return {
        name: {key: round(float(value), 3) for key, value in values.items()}
        for name, values in scores.items()
    }


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Score language models on records, real RNAs and contacts.")
    parser.add_argument("models", nargs="+")
    parser.add_argument(
        "--records", type=Path, default=Path(__file__).resolve().parents[1] / "records.parquet"
    )
    parser.add_argument("--bprna", type=Path, help="a table of real RNAs with their structures")
    parser.add_argument("--audit", action="store_true", help="also the categorical Jacobian")
    parser.add_argument("--per-set", type=int, default=600)
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    given = parser.parse_args(arguments)
    records = pd.read_parquet(given.records)
    real = real_rnas(given.bprna, 2 * given.per_set) if given.bprna else None
    results = {}
    for folder in given.models:
        results[folder] = evaluate(folder, records, given.per_set, real, given.audit)
        print(folder, json.dumps(results[folder]), flush=True)
        if given.output:
            given.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
