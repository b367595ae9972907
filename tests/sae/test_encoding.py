"""What is written when RNAs are encoded: tokens in record order, the features of each, and a summary."""

import numpy as np
import pandas as pd
import pytest
import torch

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import Standardiser
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.encoding import encode_group, features_file, token_table
from sae_rna.sae.features import load_csr

RECORDS = pd.DataFrame(
    {
        "sequence": ["ACGNU", "GG", "ACGUACGUACGU"],
        "element": ["FSHSE", "EE", "FFSSSHHSSSEE"],
        "type": ["tRNA", "tRNA", "rRNA"],
    }
)


def test_tokens_are_the_nucleotides_in_record_order_without_other_letters():
    tokens = token_table(RECORDS[:2])
    assert tokens.record.tolist() == [0, 0, 0, 0, 1, 1]
    assert tokens.position.tolist() == [0, 1, 2, 4, 0, 1]
    assert "".join(tokens.base) == "ACGUGG" and "".join(tokens.element) == "FSHEEE"
    assert "element" not in token_table(RECORDS[["sequence"]])


@pytest.fixture(scope="module")
def encoded(tiny_model, tmp_path_factory):
    """Model, stacks by folder; of the second stack the summary alone is kept."""
    model = LanguageModel.load(str(tiny_model), device="cpu")
    stacks = {}
    for architecture, sparsity in (("topk", 4), ("relu-l1", 0.1)):
        config = AutoencoderConfig(architecture, (Member(1, sparsity), Member(3, sparsity)), model.width, 96)
        stack = SparseAutoencoders(config, Standardiser(torch.zeros(2, 32), torch.ones(2, 32)))
        stacks[tmp_path_factory.mktemp(architecture)] = stack.eval()
    encode_group(stacks, model, RECORDS, kept=list(stacks)[:1])
    return model, stacks


def test_kept_features_are_those_of_every_record_by_itself(encoded):
    model, stacks = encoded
    (folder, stack), (other, _) = stacks.items()
    tokens = token_table(RECORDS)
    for place, layer in enumerate((1, 3)):
        matrix = load_csr(folder / features_file(layer)).toarray()
        for row, sequence in enumerate(RECORDS.sequence):
            (states,) = model.hidden_states([sequence], [layer])
            with torch.no_grad():
                alone = list(stack.views())[place].encode(states.values_TLD.transpose(0, 1))[0]
            np.testing.assert_allclose(matrix[tokens.record == row], alone.numpy(), atol=1e-5)
    assert [path.name for path in other.iterdir()] == ["summary.parquet"]


def test_the_summary_is_that_of_the_features(encoded):
    folder = next(iter(encoded[1]))
    summary, record_T = pd.read_parquet(folder / "summary.parquet"), token_table(RECORDS).record
    for layer in (1, 3):
        mine, matrix = summary[summary.layer == layer], load_csr(folder / features_file(layer)).toarray()
        pooled = pd.DataFrame(matrix).groupby(record_T.to_numpy()).max()
        np.testing.assert_allclose(mine.density, (matrix > 0).mean(0))
        assert mine.sequences.tolist() == (pooled > 0).sum().tolist()
        low, high = np.sort([pooled[:2].mean(), pooled.loc[2]], axis=0)
        active = high > 0
        np.testing.assert_allclose(mine.tau[active], 1 - (low / np.where(active, high, 1))[active], atol=1e-6)
        assert mine.tau[~active].isna().all() and mine.explained_variance.nunique() == 1
