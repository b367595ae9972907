"""How familiar RNAs are to a language model: their length, GC content and surprisal beside training RNAs'.

Surprisal is the mean of -ln p of the bases that stand there, in nats, from one pass in which nothing is
masked. With the embedded model it tells shuffled and random sequences from training RNAs as well as when each
base is masked, which takes many passes, and better than one pass with some bases masked.
Shapes: S sequences, B x W tokens, T nucleotides, D width.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.composition import gc_content

MEASURES = "length", "gc", "surprisal"
AT_ONCE = 2048  # tokens in one pass: more take more memory and are hardly faster on a CPU
RANGE = 0.01, 0.99  # quantiles of the training RNAs between which an RNA is familiar


class Reading(NamedTuple):
    """What one pass over a batch of RNAs gives, for its T nucleotides."""

    sequence_T: np.ndarray  # number in the list asked for
    position_T: np.ndarray  # from 0
    states: dict[int, torch.Tensor]  # hidden states [T, D] by layer, as of `LanguageModel.hidden_states`
    surprisal_T: np.ndarray  # NaN if the model has no head for masked bases


@torch.inference_mode()
def read(model: LanguageModel, sequences: Sequence[str], layers: Sequence[int] = ()) -> Iterator[Reading]:
    """States of `layers` and surprisal of all nucleotides, batch by batch, in one pass."""
    for rows in model.batches(sequences, AT_ONCE):
        tokens = model.tokenize([sequences[row] for row in rows])
        there_BW, states = model.nucleotide_mask(tokens["input_ids"]), dict[int, torch.Tensor]()

        def take(layer: int, there_BW=there_BW, states=states):
            return lambda state_BWD: states.update({layer: state_BWD[there_BW].float()})

        with ExitStack() as hooks:
            for layer in set(layers):
                hooks.enter_context(model.hooked(layer, take(layer)))
            output = model.model(**tokens)
        row, column = (of.cpu().numpy() for of in there_BW.nonzero(as_tuple=True))
        surprisal_T = np.full(len(row), np.nan)
        if "logits" in output:
            log_T4 = output.logits[there_BW][:, model.base_ids].float().log_softmax(-1)
            own_T4 = tokens["input_ids"][there_BW][:, None] == model.base_ids
            surprisal_T = -log_T4[own_T4].cpu().numpy().astype(float)
        yield Reading(rows[row], column - model.first, states, surprisal_T)


def measured(records: pd.DataFrame, surprisal_S: np.ndarray) -> pd.DataFrame:
    """id and `MEASURES` of every record."""
    columns = {"id": records.id.to_numpy(), "length": records.sequence.str.len().to_numpy()}
    return pd.DataFrame(columns | {"gc": gc_content(records.sequence), "surprisal": surprisal_S})


def ranges(model: LanguageModel, records: pd.DataFrame) -> pd.DataFrame:
    """Between which values 98 % of the records are: measure, low, high."""
    total_S, count_S = np.zeros((2, len(records)))
    for reading in read(model, records.sequence.tolist()):
        np.add.at(total_S, reading.sequence_T, reading.surprisal_T)
        np.add.at(count_S, reading.sequence_T, 1)
    table = measured(records, total_S / np.maximum(count_S, 1))
    ends = [table[list(MEASURES)].quantile(share) for share in RANGE]
    return pd.concat(ends, axis=1, keys=["low", "high"]).rename_axis("measure").reset_index()


def outside(table: pd.DataFrame, known: pd.DataFrame) -> list[str]:
    """What of every record of `measured` is beyond `ranges`, such as "short, GC high"; empty if nothing."""
    words = {"length": ("short", "long"), "gc": ("GC low", "GC high")}
    words |= {"surprisal": ("", "surprisal high")}  # what surprises little is not strange
    parts = []
    for measure, low, high in known.itertuples(index=False):
        for word, is_out in zip(words[measure], (table[measure] < low, table[measure] > high)):
            parts.append(np.where(is_out, word, ""))
    return [", ".join(filter(None, of)) for of in zip(*parts)] if parts else [""] * len(table)
