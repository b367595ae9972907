"""Features chosen on a run's own RNAs, scored on structures that took part in nothing, such as bpRNA-90's.

    python benchmarks/real_structures.py bprna-90.parquet --profile default

Layer and feature are chosen on the run's selection families, as everywhere in the book, for the language
model's autoencoders and for those of random weights; what is trained or encoded already is used again. The
other structures (a file in any format that the package reads) are read by the same model. Writes
results/real_structures.md.
"""

import argparse
from pathlib import Path

import pandas as pd

from sae_rna.analysis.controls import latents
from sae_rna.analysis.statistics.choosing import score_elements
from sae_rna.extraction.stream import hidden_states
from sae_rna.parameters import Parameters
from sae_rna.records.readers import read_records
from sae_rna.records.splits import select_length, settings
from sae_rna.records.structure import ELEMENTS, add_elements
from sae_rna.sae.encoding import token_table
from sae_rna.study import Study

RESULTS = Path(__file__).parent / "results"
WANTED, BOOTSTRAPS = ("S", "H"), 1000


def scored(study: Study, records: pd.DataFrame) -> pd.DataFrame:
    """The stem and hairpin features of every setting and model, each of the layer that is best where it is
    chosen, with their base-stratified AUROC on `records` (95 % interval: RNAs resampled)."""
    p, tables, tokens = study.parameters, [], token_table(records)
    for model, variant in ((study.model, p.main[0]), (study.random_model, p.random)):
        own, autoencoders = study.activations("structures", variant), study.autoencoders(variant)
        for layer in study.layers:
            encode = latents(autoencoders[layer])
            real = encode(hidden_states(model, records.sequence.tolist(), [layer])[:, 0]), tokens
            for setting, (selection, _) in settings(own.records).items():
                known, retained_F = own.of_split(layer, selection), own.retained(layer)
                table = score_elements(known, real, retained_F, shuffles=0, bootstraps=BOOTSTRAPS)
                tables.append(table.assign(setting=setting, model=own.name, layer=layer))
    table = pd.concat(tables)
    table = table[table.element.isin(WANTED)].reset_index(drop=True)
    rows = table.groupby(["element", "setting", "model"]).selection_base_auroc.idxmax()
    return table.loc[rows].replace({"element": ELEMENTS})


def main():
    parser = argparse.ArgumentParser(
        description="Score a run's stem and hairpin features on other structures."
    )
    parser.add_argument("structures", type=Path, help="RNAs of known secondary structure")
    parser.add_argument("--profile", default="default", help="the run whose features are scored")
    parser.add_argument("--rnas", type=int, default=2000, help="most RNAs, drawn at random")
    given = parser.parse_args()
    study = Study(Parameters.from_profile(given.profile))
    source = study.source("structures")
    records = select_length(read_records(given.structures), source.longest)
    records = records.sample(min(given.rnas, len(records)), random_state=study.parameters.seed)
    records = add_elements(records.reset_index(drop=True))
    columns = ["element", "setting", "model", "layer", "feature", "selection_base_auroc"]
    columns += ["base_auroc", "base_auroc_low", "base_auroc_high"]
    table = scored(study, records)[columns]
    lines = table.to_markdown(index=False, floatfmt=".3f")
    said = (
        f"{len(records):,} RNAs of {given.structures.name}; profile {given.profile}. Base-stratified AUROC."
    )
    (RESULTS / "real_structures.md").write_text(f"{said}\n\n{lines}\n")
    print(lines)


if __name__ == "__main__":
    main()
