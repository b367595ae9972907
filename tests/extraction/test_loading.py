"""What cannot be read is refused in one sentence; weights are the checkpoint's, or drawn by the seed."""

import json

import pytest
import torch
from multimolecule import (
    CaLmConfig,
    DnaBertConfig,
    DnaTokenizer,
    EsmCConfig,
    OptMrlConfig,
    ProteinTokenizer,
    RibonanzaNetConfig,
    RnaFmConfig,
    RnaMsmConfig,
    RnaTokenizer,
    UtrBertConfig,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from sae_rna.extraction.language_model import LanguageModel


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


def test_a_checkpoint_with_other_keys_is_refused(tiny_model, tmp_path):
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name.replace("layer.1.", "layer.9."): value for name, value in weights.items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ValueError, match=r"layer\.1\..*another model"):
        LanguageModel.load(str(tmp_path))


def test_a_path_that_is_none_is_no_hub_id():
    with pytest.raises(ValueError, match="neither a folder nor a hub id"):
        LanguageModel.load("/no/such/folder/at/all")


def test_a_folder_without_a_model_and_an_unreachable_hub_id_end_in_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds no config.json"):
        LanguageModel.load(str(tmp_path))
    monkeypatch.setattr("sae_rna.extraction.loading.snapshot_download", _unreachable)
    with pytest.raises(
        ValueError,
        match=r"someone/model cannot be .*\(no connection.*check its name, its revision and the network",
    ):
        LanguageModel.load("someone/model")


def _unreachable(*_, **__):
    raise OSError("no connection\nand many more lines")


def test_the_fingerprint_is_that_of_the_checkpoint_alone(tiny_model):
    fingerprints = []
    for seed in (1, 2):
        torch.manual_seed(
            seed
        )  # a checkpoint without pooler would otherwise be completed with random weights
        fingerprints.append(LanguageModel.load(str(tiny_model)).fingerprint)
    assert fingerprints[0] == fingerprints[1]


def test_random_weights_differ_from_the_checkpoint_and_are_seeded(tiny_model):
    given = LanguageModel.load(str(tiny_model))
    one, same, other = (
        LanguageModel.load(str(tiny_model), random_seed=seed).fingerprint for seed in (1, 1, 2)
    )
    assert one == same and len({given.fingerprint, one, other}) == 3
    assert given.key == {"model": given.fingerprint} and json.loads(json.dumps(given.key)) == given.key


REFUSED = {
    "three nucleotides a token": (
        lambda: small(UtrBertConfig, nmers=3),
        lambda: RnaTokenizer(nmers=3),
        "reads 3 nucleotides as one",
    ),
    "codons": (
        lambda: small(CaLmConfig),
        lambda: DnaTokenizer(codon=True),
        "reads 3 nucleotides as one token.*give a model with one",
    ),
    "codons of RNA-FM": (
        lambda: small(RnaFmConfig, codon=True),
        lambda: RnaTokenizer(codon=True),
        "reads 3 nucleotides as one token",
    ),
    "words of DNA": (
        lambda: small(DnaBertConfig),
        lambda: DnaTokenizer(nmers=6),
        "reads 6 nucleotides as one token",
    ),
    "alignments": (
        lambda: small(RnaMsmConfig),
        RnaTokenizer,
        "reads alignments of many RNAs, not single ones",
    ),
    "padding that is seen": (
        lambda: small(RibonanzaNetConfig),
        RnaTokenizer,
        "change with the padding.*give another encoder",
    ),
    "proteins": (lambda: small(EsmCConfig), ProteinTokenizer, "no model of RNA or DNA.*ProteinTokenizer"),
    "no blocks": (OptMrlConfig, RnaTokenizer, "type optmrl, which is not built of attention blocks"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_without_a_state_for_each_nucleotide_are_refused_in_one_sentence(case, tmp_path):
    config, tokenizer, sentence = REFUSED[case]
    config().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=sentence) as caught:
        LanguageModel.load(str(tmp_path), device="cpu", random_seed=0)
    assert "\n" not in str(caught.value)


def test_ribonanzanet_is_refused_because_padding_changes_its_states(tmp_path):
    torch.manual_seed(0)
    model, tokenizer = AutoModel.from_config(small(RibonanzaNetConfig)).eval(), RnaTokenizer()
    with torch.no_grad():
        alone = model(**tokenizer(["GGGAAACCC"], return_tensors="pt"))
        beside = model(**tokenizer(["GGGAAACCC", "ACGU" * 8], return_tensors="pt", padding=True))
    difference = (
        alone.last_hidden_state[0] - beside.last_hidden_state[0, :11]
    ).norm() / alone.last_hidden_state.norm()
    assert difference > 0.01
