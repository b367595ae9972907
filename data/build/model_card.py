"""The model card, `data/rinalmo-nano/README.md`, from the model's own history and from scores made for it.

python data/build/evaluate.py data/rinalmo-nano --bprna bprna-90.parquet --audit --output scores.json
python data/build/model_card.py --scores scores.json
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from data_card import markdown
from evaluate import SEED, record_sets
from synthetic import STAGES

from sae_rna.analysis.language_model import masked_accuracy
from sae_rna.extraction.language_model import LanguageModel

DATA = Path(__file__).resolve().parents[1]


def stages_table(accuracy: list[float]) -> pd.DataFrame:
    """The grammars, with the accuracies on masked paired bases."""
    rows = []
    for number, (grammar, reached) in enumerate(zip(STAGES, accuracy), 1):
        ranges = {
            "stems (bp)": grammar.stem, "hairpin loops (nt)": grammar.hairpin, "length (nt)": grammar.length,
        }  # fmt: skip
        row = {"grammar": number} | {name: f"{low}-{high}" for name, (low, high) in ranges.items()}
        rows.append(row | {"branching": grammar.branching, "accuracy, paired": reached})
    return pd.DataFrame(rows)


def curve_table(history: list[dict], rows: int = 14) -> pd.DataFrame:
    """The run's reports, thinned out: accuracy (all, paired) and cross-entropy of the averaged weights."""
    chosen = sorted({round(i * (len(history) - 1) / max(1, rows - 1)) for i in range(rows)})
    table = []
    for report in (history[i] for i in chosen):
        row = {"million nucleotides": f"{report['nucleotides'] / 1e6:.1f}", "rate": f"{report['rate']:.5f}"}
        for name, scores in report.items():
            if isinstance(scores, dict):
                row[name] = " / ".join(f"{scores[key]:.3f}" for key in ("accuracy", "paired", "loss"))
        table.append(row)
    return pd.DataFrame(table)


def recipes_text(facts: dict) -> str:
    """What was changed on the way, if anything."""
    texts, recipes = [], facts.get("recipes", [])
    for before, after in zip(recipes, recipes[1:]):
        changed = [f"{name} from {before['recipe'].get(name)} to {value}" for name, value in after["recipe"].items()
                   if before["recipe"].get(name) != value]  # fmt: skip
        texts.append(f"at step {after['from step']:,}: {', '.join(changed)}")
    return "Changed on the way: " + "; ".join(texts) + "." if texts else "Nothing was changed on the way."


def runs_before(facts: dict) -> list[dict]:
    """The runs from whose weights this one went on, the first one first."""
    start = facts.get("start")
    return [*runs_before(start), start] if start else []


def runs_text(facts: dict) -> str:
    """The runs before this one, if any."""
    texts = []
    for run in runs_before(facts):
        shares = run["recipe"]
        text = f"{run['seen'] / 1e6:.1f} million nucleotides"
        if "redrawn" in shares:  # the first version's recipe has other names
            text += f" ({shares['families']:.0%} families and {shares['redrawn']:.0%} redrawn at the end)"
        texts.append(text)
    return f", after {' and '.join(texts)} in runs from whose weights it went on" if texts else ""


def training_text(facts: dict) -> str:
    """How the weights came about."""
    recipe, begun = facts["recipe"], runs_text(facts)
    return f"""## Training

{facts["step"]:,} steps, {facts["seen"] / 1e6:.1f} million nucleotides{begun}. Of these {facts["synthetic"] / facts["seen"]:.0%}
were synthetic: RNAs of random helices drawn afresh, and structures of training families with fresh bases. The rest
are samples and natural RNAs of the training families (the data card says which); the families of `selection`,
`heldout` and `natural` were never seen, nor were the sequences of `validation`, `seen-selection` and `seen-heldout`.
`data/build/pretrain.py` repeats the run; `pretraining.json` beside this file holds its recipe and its whole history
({len(facts["history"]):,} reports). {recipes_text(facts)}

A quarter of the positions or more are chosen; 50 % of these become the mask token, 35 % a random base, 15 % stay.
Three quarters of the synthetic RNAs and half of the others have a mask that never hides both ends of a pair. Where
the source is known, the target of a hidden or replaced base is not the base but the source's probabilities given the
base of its pairing partner (the grammar's own, or the covariance model's from its emissions): the expected gradient
is the same and its noise is less. The released weights are an exponential moving average (decay
{recipe["average"]:g} a step). Muon for the encoder's matrices at rate {recipe["learning_rate"]:g}, AdamW for the rest at
half of it; {recipe["batch_tokens"] * recipe["batches"]:,} tokens a step; warm-up, constant, and a linear fall to zero over the
last {recipe["anneal"]:.0%}. The first {recipe["helices_first"]:.0%} of the run read random helices alone; afterwards {recipe["families"]:.0%} of the
nucleotides are families', {recipe["redrawn"]:.0%} structures of families with fresh bases, and the rest helices.

Accuracy of all masked bases / of paired ones / cross-entropy in nats on the way, 300 RNAs a set at most:

{markdown(curve_table(facts["history"]))}

The grammars, with the accuracy on masked paired bases (15 % masked); what can be reached falls from one to the next:

{markdown(stages_table(facts["accuracy"]))}
"""


def model_card(folder: Path, records: pd.DataFrame, scores: dict) -> str:
    """The whole card. `scores` are those of `evaluate.py` for this folder."""
    facts = json.loads((folder / "pretraining.json").read_text())
    recipe, before = facts["recipe"], sum(run["seen"] for run in runs_before(facts))
    model = LanguageModel.load(str(folder), masked=True)
    body = LanguageModel.load(str(folder))
    random = LanguageModel.load(str(folder), masked=True, random_seed=SEED)
    predictors = {"language model": model, "same architecture, random weights": random}
    training = records[records.split == "train"]
    tested = pd.concat([rows.assign(set=name) for name, rows in record_sets(records, 600).items()])
    masked = masked_accuracy(predictors, training, tested, SEED)
    masked = masked.drop(columns=["bases", "paired_bases"])
    others = pd.DataFrame(
        [{"test": f"{test}: {name}", "score": float(value)} for test in ("bpRNA-90", "stem probe", "Jacobian")
         for name, value in scores.get(test, {}).items() if name != "RNAs"]
    )  # fmt: skip
    return f"""# Model card: rinalmo-nano

A masked language model of RNA with RiNALMo's architecture (multimolecule's `RiNALMoForMaskedLM`): {recipe["blocks"]}
blocks of width {recipe["width"]}, {recipe["heads"]} heads, {body.parameter_count:,} parameters without the head. It exists
so that the whole study runs offline on two cores. It is no substitute for RiNALMo: it saw
{(before + facts["seen"]) / 1e6:.1f} million nucleotides, RiNALMo-giga billions.

{training_text(facts)}
## Masked bases

600 RNAs a set at most, 15 % of their bases hidden at once. The Markov chain sees both sides of a hidden base.

{markdown(masked)}

## Structure

Real RNAs of bpRNA-90: masked bases as above, and a linear probe for "is in a stem" (best block; one half of the RNAs
fits, the other scores; beside it the same probe on a window of bases). Precision of the categorical Jacobian among as
many top contacts as pairs, on the 47 RNAs that rna-structure-audit 0.2.1 ships.

{markdown(others)}

## Licence

AGPL-3.0-or-later, as the code.
"""


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Write the model card.")
    parser.add_argument("--model", type=Path, default=DATA / "rinalmo-nano")
    parser.add_argument("--records", type=Path, default=DATA / "records.parquet")
    parser.add_argument("--scores", type=Path, help="what evaluate.py wrote, for this model")
    given = parser.parse_args(arguments)
    scores = json.loads(given.scores.read_text()) if given.scores else {}
    scores = next(iter(scores.values()), {})
    card = model_card(given.model, pd.read_parquet(given.records), scores)
    (given.model / "README.md").write_text(card)


if __name__ == "__main__":
    main()
