"""What `sae-rna audit` does: does any language model know base pairs? One page, and the tables behind it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sae_rna import figures
from sae_rna.analysis import base_pairs
from sae_rna.analysis.language_model import RANDOM, TRAINED
from sae_rna.analysis.statistics import audit
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.files import try_writing, write_atomically, write_json
from sae_rna.parameters import resolve
from sae_rna.publishing import page_html
from sae_rna.records.readers import read_records

LONGEST = 120  # nucleotides in RNAs that are audited: the cost grows with the square
SEED = 0
_INTRODUCTION = (
    "Does this model know which bases pair? Each base of an RNA is mutated, and what changes elsewhere is "
    "measured: in hidden states (the structure audit) and in what the model expects (contacts). Beside it "
    "stands the same architecture with random weights, which shows what composition and architecture do "
    "by themselves."
)
_LADDER = (
    "Means over {families} families of at most {sequences} RNAs each, with 95 % intervals over families. "
    "'Rotated' is chance: the same on structures rotated along their RNAs, so that stems stay stems; 5 % "
    "of families lie above the 95th percentile of their rotations by chance. The layer was chosen on the "
    "other families. States are float64, and a change below a millionth of a state's norm is none. "
    "Mirrored RNAs, and RNAs whose base pairs changed places, keep complementary pairs but are of no "
    "family: what is lost there was memory. Where an interval reaches chance, nothing is shown."
)
_CONTACTS = (
    "Precision among as many of the top contacts as the RNA has pairs, in {rnas} RNAs, one of each "
    "audited family: faint points are RNAs, bold ones means. Means of the Jacobian: {jacobian}; of "
    "nucleotide dependencies: {dependency}; of random weights: {random}; at random: {chance}. Whether the "
    "model was trained on these families is not known here; if it was, it may remember them."
)
_MAPS = (
    "Contact scores of the RNA whose precision is nearest to the median ({precision}), above the "
    "diagonal, as shares of its highest score; below the diagonal the pairs of its known structure."
)
_PUBLISHED = (
    "The three rungs of rna-structure-audit as its package computes them, with its grade (A to D). Read "
    "it beside the corrected ladder: here labels are permuted nucleotide by nucleotide, which breaks "
    "stems; the layer is the best one of each family on that family itself; each family is one sequence; "
    "and any effect above 0 counts."
)


def write_audit(model: str, records: str, families: int, sequences: int, output: Path) -> list[Path]:
    """Audit a language model, from a folder or the hub, on the RNAs of a file; return the files written.

    Records of the split train are left out, if there are splits. Raises ValueError if fewer than two families
    have RNAs that can be audited.
    """
    if families < 2 or sequences < 1:
        raise ValueError(f"{families} families of {sequences} RNAs cannot be audited: ask for 2 of 1 or more")
    try_writing(output / "audit.html")
    own, random = (LanguageModel.load(resolve(model), random_seed=seed) for seed in (None, SEED))
    table = read_records(resolve(records))
    if "secondary_structure" not in table:
        raise ValueError(f"{records} has no secondary structures: give records with secondary_structure")
    table = table[table.split != "train"] if "split" in table else table
    longest = min(LONGEST, own.longest)
    rnas = audit.audit_rnas(table, families, sequences, longest, SEED)
    if (found := rnas.family.nunique()) < 2:
        fewest = f"of at most {longest} nt with {audit.FEWEST} pairs inside helices"
        raise ValueError(f"{found} families of {records} have RNAs {fewest}: give records of two or more")
    ladder = audit.ladder({TRAINED: own, RANDOM: random}, rnas, SEED)
    facts = f"{model}: {own.parameter_count:,} parameters, {own.blocks} blocks of width {own.width}, "
    facts += f"fingerprint {own.fingerprint}. Records: {records}."
    numbers = {"families": found, "sequences": sequences}
    parts = [facts, _INTRODUCTION, "# The structure audit, corrected", _LADDER.format(**numbers)]
    parts += [
        base_pairs.audit_table(ladder, SEED),
        "# The structure audit as published",
        *published(own, output),
    ]
    contacts, shown = _contacts(resolve(model), rnas)
    files = {
        "audit.html": page_html("Does the language model know base pairs?", [*parts, "# Contacts", *shown])
    }
    files |= {"ladder.csv": ladder.to_csv(index=False), "contacts.csv": contacts.to_csv(index=False)}
    for name, content in files.items():
        write_atomically(output / name, content)
    return [output / name for name in files]


def _contacts(model: str, rnas: pd.DataFrame) -> tuple[pd.DataFrame, list]:
    """Contacts of one RNA of each family, and what the page shows of them."""
    try:
        models = {name: LanguageModel.load(model, random_seed=seed, masked=True)
                  for name, seed in ((TRAINED, None), (RANDOM, SEED))}  # fmt: skip
    except ValueError as error:
        return base_pairs.contacts({}, rnas), [f"No contacts: {error}."]
    rnas = base_pairs.in_lengths(rnas.drop_duplicates("family").assign(set="audited families"))
    scores = base_pairs.contacts(models, rnas)
    maps = base_pairs.contact_maps(models, rnas, scores)
    words = _CONTACTS.format(**base_pairs.contact_numbers(scores))
    below = _MAPS.format(precision=base_pairs.shown_precision(maps))
    return scores, [figures.contact_precision(scores), words, figures.contact_maps(maps), below]


class _Adapter:
    """A language model as rna-structure-audit reads it."""

    def __init__(self, model: LanguageModel):
        self.model, self.name = model, model.source
        self.d_model, self.n_layers = model.width, model.blocks

    def load(self):
        """Nothing is left to do."""

    def tokenize(self, sequence: str) -> torch.Tensor:
        """Ids of one RNA, [1, W]."""
        return self.model.tokenize([sequence])["input_ids"]

    @torch.inference_mode()
    def get_all_layer_embeddings(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """States of the nucleotides in each layer, [L, D], the embedding first."""
        end = tokens.shape[1] - self.model.tokenizer.num_special_tokens_to_add() + self.model.first
        options = {"attention_mask": torch.ones_like(tokens), "output_hidden_states": True}
        states = self.model.model.base_model(input_ids=tokens, **options).hidden_states
        return [state_BWD[0, self.model.first : end] for state_BWD in states]


def published(model: LanguageModel, output: Path) -> list[str | pd.DataFrame]:
    """The three rungs by their own package, for the page; ``published.json`` has every family.

    Where the package is not installed, or the model reads only shorter RNAs, a sentence says so.
    """
    try:
        from rna_structure_audit.data import load_families
        from rna_structure_audit.evaluate import evaluate
    except ImportError:
        return ["Not run: the package is not installed. Its remedy: pip install 'sae-rna[audit]'."]
    if (length := max(len(family["sequence"]) for family in load_families())) > model.longest:
        return [f"Not run: its RNAs have up to {length} nt, and this model reads at most {model.longest}."]
    state = np.random.get_state()
    np.random.seed(SEED)  # its derangements are drawn from the global generator
    try:
        results: dict[str, Any] = evaluate(_Adapter(model), device=str(model.device))
    finally:
        np.random.set_state(state)
    write_json(output / "published.json", json.loads(json.dumps(results, default=str)))
    report = results["report"]
    rungs = [report[f"rung{number}"] for number in (1, 2, 3)]
    rows = [("1: stems against loops, families above the null", rungs[0]["families_exceeding_null"]),
            ("1: families scored", rungs[0]["families_scored"]),
            ("2: of those above, families above the dinucleotide null", rungs[1]["surviving_dinuc"]),
            ("3: partner specificity", rungs[2]["mean_ps"]),
            ("3: precision", rungs[2]["mean_h3_precision"]),
            ("3: families above the null", rungs[2]["exceeding_null"]),
            (f"grade: {report['grade_description']}", report["grade"])]  # fmt: skip
    written = [value if isinstance(value, str) else f"{value:.3g}" for _, value in rows]
    return [_PUBLISHED, pd.DataFrame({"rung": [name for name, _ in rows], "result": written})]
