"""Every encoder of multimolecule with one token a nucleotide is read as it computes."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multimolecule import (
    CaLmConfig,
    DnaTokenizer,
    ErnieRnaConfig,
    RiNALMoConfig,
    RnaBertConfig,
    RnaErnieConfig,
    RnaFmConfig,
    RnaTokenizer,
    SpliceBertConfig,
    UtrLmConfig,
)
from transformers import AutoModel, AutoModelForPreTraining

from sae_rna.extraction.language_model import LanguageModel

SEQUENCES = ["GGGAAACCC", "GGCNACGUUAGCC", "A", "ACGU" * 8, "GCGCAAAAGCGC"]
LONGEST = {  # of 64 positions, less two special tokens; less two rows where positions count from 2 on
    "rinalmo": 62,
    "rnafm": 60,
    "ernierna": 60,
    "rnabert": 62,
    "splicebert": 62,
    "utrlm": 62,
    "rnaernie": 62,
    "calm": 62,
}
CONFIGS = {
    "rinalmo": RiNALMoConfig,
    "rnafm": RnaFmConfig,
    "ernierna": ErnieRnaConfig,
    "rnabert": RnaBertConfig,
    "splicebert": SpliceBertConfig,
    "utrlm": UtrLmConfig,
    "rnaernie": RnaErnieConfig,
    "calm": CaLmConfig,
}
TOKENIZERS = {
    "as usual": {},
    "no cls": {"cls_token": None, "bos_token": None},
    "no eos": {"eos_token": None, "sep_token": None},
    "neither": {"cls_token": None, "bos_token": None, "eos_token": None, "sep_token": None},
    "left padding": {"padding_side": "left"},
}


def small(config, **other):
    """Three blocks of width 24 with weights so large that attention is far from uniform."""
    return config(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,
        **other,
    )


@pytest.fixture(scope="module", params=list(CONFIGS))
def encoder(request, tmp_path_factory):
    """Name and folder of an encoder with its pre-training head, as they lie on the hub."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    torch.manual_seed(0)
    codon = (
        {"codon": False} if name == "calm" else {}
    )  # the architecture of a codon model, here on nucleotides, of DNA
    AutoModelForPreTraining.from_config(
        small(CONFIGS[name], max_position_embeddings=64, **codon)
    ).save_pretrained(folder)
    (DnaTokenizer if name == "calm" else RnaTokenizer)().save_pretrained(folder)
    return name, folder


def own_states(folder, tokenizer, sequence):
    """Hidden states [L, T, D] and positions of A, C, G and U, loaded and run as the library does."""
    model = AutoModel.from_pretrained(folder).eval()
    tokens = tokenizer(sequence, return_tensors="pt")
    with torch.no_grad():
        states = torch.stack(model(**tokens, output_hidden_states=True).hidden_states)[:, 0]
    bases = tokenizer.convert_tokens_to_ids(
        ["A", "C", "G", "T" if isinstance(tokenizer, DnaTokenizer) else "U"]
    )
    columns = [column for column, token in enumerate(tokens["input_ids"][0].tolist()) if token in bases]
    return states[:, columns], [place for place, base in enumerate(sequence) if base in "ACGU"]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_hidden_states_are_those_of_the_librarys_forward_pass_whatever_the_special_tokens(
    encoder, kind, tmp_path
):
    name, folder = encoder
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    tokenizer = (DnaTokenizer if name == "calm" else RnaTokenizer)(**TOKENIZERS[kind])
    tokenizer.save_pretrained(tmp_path)
    model = LanguageModel.load(str(tmp_path), device="cpu")
    (states,) = model.hidden_states(SEQUENCES, range(model.blocks + 1))
    for row, sequence in enumerate(SEQUENCES):
        expected, positions = own_states(tmp_path, tokenizer, sequence)
        mine = states.sequence_T == row
        assert states.position_T[mine].tolist() == positions
        torch.testing.assert_close(states.values_TLD[mine].transpose(0, 1), expected, atol=2e-5, rtol=1e-4)


def test_the_longest_sequence_is_read_and_one_nucleotide_more_is_refused(encoder):
    name, folder = encoder
    model = LanguageModel.load(str(folder), device="cpu")
    assert model.longest == LONGEST[name]
    longest = "ACGU" * 15 + "AC" * (model.longest == 62)
    (states,) = model.hidden_states([longest], [model.blocks])
    expected, _ = own_states(folder, model.tokenizer, longest)
    torch.testing.assert_close(states.values_TLD[:, 0], expected[-1], atol=2e-5, rtol=1e-4)
    message = f"sequence 2 has {len(longest) + 1} nt, but .* reads at most {model.longest}"
    with pytest.raises(ValueError, match=message):
        next(model.hidden_states(["A", longest + "A"], [1]))
    if (
        hasattr(model.model.embeddings.position_embeddings, "num_embeddings") and name != "ernierna"
    ):  # whose sinusoids go on
        with pytest.raises(IndexError):
            own_states(folder, model.tokenizer, longest + "A")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Models that differ in their alphabet."""
    models = []
    for number, tokenizer in enumerate(
        [RnaTokenizer(), RnaTokenizer("streamline"), RnaTokenizer("nucleobase"), DnaTokenizer()]
    ):
        folder = tmp_path_factory.mktemp(f"tokenizer-{number}")
        small(RiNALMoConfig).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        models.append(LanguageModel.load(str(folder), device="cpu", random_seed=0))
    return models


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text("ACGUTNRYKMSWBDHVIX", min_size=1, max_size=30) | st.text("ACGUacgun.*-?E", min_size=1),
        min_size=1,
        max_size=4,
    )
)
def test_tokens_are_those_of_the_tokenizer(tokenizers, sequences):
    for model in tokenizers:
        expected = model.tokenizer(sequences, return_tensors="pt", padding=True)
        tokens = model.tokenize(sequences)
        assert tokens["input_ids"].tolist() == expected["input_ids"].tolist()
        assert tokens["attention_mask"].tolist() == expected["attention_mask"].tolist()
