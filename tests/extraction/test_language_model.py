"""Extraction equals the model's own forward pass, nucleotides only."""

import numpy as np
import pytest
import torch

from sae_rna.extraction.language_model import LanguageModel

SEQUENCES = ["GGGAAACCC", "GGCNACGUUAGCC", "ACGU" * 8, "GCGCAAAAGCGC"]


def test_hidden_states_are_those_of_the_models_own_forward_pass(tiny_model):
    model = LanguageModel.load(str(tiny_model))
    for states in model.hidden_states(SEQUENCES, range(model.blocks + 1)):
        for row in np.unique(states.sequence_T):
            tokens = model.tokenizer(SEQUENCES[row], return_tensors="pt")
            reference = model.model(**tokens, output_hidden_states=True).hidden_states
            mine = states.sequence_T == row
            for layer, expected in enumerate(reference):
                torch.testing.assert_close(
                    states.values_TLD[mine, layer],
                    expected[0, 1:-1][states.position_T[mine]],
                    atol=1e-5,
                    rtol=1e-4,
                )


def test_the_last_hidden_state_is_after_the_final_layer_norm_and_the_others_are_before(tiny_model):
    model = LanguageModel.load(str(tiny_model))
    norm = model.model.encoder.layer_norm
    blocks = []
    hooks = [
        block.register_forward_hook(lambda _, __, output: blocks.append(output))
        for block in model.model.encoder.layer
    ]
    (states,) = model.hidden_states(SEQUENCES[:1], range(1, model.blocks + 1))
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(states.values_TLD[:, -1], norm(blocks[-1])[0, 1:-1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(states.values_TLD[:, 0], blocks[0][0, 1:-1], atol=1e-5, rtol=1e-4)


def test_layers_come_in_the_order_asked_for_and_no_block_behind_the_deepest_is_computed(tiny_model):
    model = LanguageModel.load(str(tiny_model))
    (all_states,) = model.hidden_states(SEQUENCES, range(model.blocks + 1))
    computed = []
    hooks = [
        block.register_forward_hook(lambda *_, number=number: computed.append(number))
        for number, block in enumerate(blocks_of(model))
    ]
    (states,) = model.hidden_states(SEQUENCES, [2, 0, 2])
    for hook in hooks:
        hook.remove()
    assert computed == [0, 1]
    assert torch.equal(states.values_TLD, all_states.values_TLD[:, [2, 0, 2]])
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in blocks_of(model))
    tokens = model.tokenize(SEQUENCES)  # and a pass that was ended early leaves nothing behind
    whole = model.model(**tokens).last_hidden_state[model.nucleotide_mask(tokens["input_ids"])]
    torch.testing.assert_close(
        whole, all_states.values_TLD[np.lexsort((all_states.position_T, all_states.sequence_T)), -1]
    )


def blocks_of(model):
    return model.model.base_model.encoder.layer


def test_a_model_with_its_head_has_the_same_hidden_states(tiny_model):
    bare, headed = LanguageModel.load(str(tiny_model)), LanguageModel.load(str(tiny_model), masked=True)
    layers = range(bare.blocks + 1)
    for one, other in zip(bare.hidden_states(SEQUENCES, layers), headed.hidden_states(SEQUENCES, layers)):
        assert torch.equal(one.values_TLD, other.values_TLD)


def test_token_dropout_rescales_unmasked_sequences_as_in_the_model(tiny_model):
    model = LanguageModel.load(str(tiny_model))
    (states,) = model.hidden_states(["ACGU"], [0])
    ids = model.tokenizer("ACGU")["input_ids"][1:-1]
    expected = model.model.embeddings.word_embeddings.weight[ids] * (1 - 0.15 * 0.8)
    torch.testing.assert_close(states.values_TLD[:, 0], expected)


def test_only_a_c_g_u_have_rows_and_every_one_of_them_exactly_once(tiny_model):
    model = LanguageModel.load(str(tiny_model))
    seen = {
        (s, p)
        for states in model.hidden_states(SEQUENCES, [1])
        for s, p in zip(states.sequence_T, states.position_T)
    }
    assert seen == {
        (s, p) for s, text in enumerate(SEQUENCES) for p, base in enumerate(text) if base in "ACGU"
    }


def test_batches_hold_every_sequence_once_and_keep_to_the_budget(tiny_model):
    model = LanguageModel.load(str(tiny_model))
    sequences = ["A" * length for length in np.random.default_rng(0).integers(5, 60, 200)]
    batches = model.batches(sequences, batch_tokens=300, rng=np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all((max(len(sequences[row]) for row in rows) + 2) * len(rows) <= 300 for rows in batches)


def test_too_long_a_sequence_and_a_missing_layer_are_named(tiny_model):
    model = LanguageModel.load(str(tiny_model))
    with pytest.raises(ValueError, match=r"sequence 2 has 63 nt.*at most 62"):
        model.batches(["ACGU", "A" * 63])
    with pytest.raises(ValueError, match="layer 4 .* blocks 1 to 3"):
        next(model.hidden_states(["ACGU"], [4]))


def test_the_shipped_model_knows_its_pairs(tiny_model):
    """rinalmo-nano restores a hidden base of a clean hairpin from its partner far more often than chance."""
    from synthetic import BASES, HAIRPINS, draw_batch

    from sae_rna.analysis.language_model import model_log_probabilities
    from sae_rna.parameters import ROOT
    from sae_rna.records.composition import encode_bases

    model = LanguageModel.load(str(ROOT / "data" / "rinalmo-nano"), masked=True)
    bases, table = draw_batch(HAIRPINS, 150, np.random.default_rng(99))
    sequences = ["".join(BASES[base] for base in row if base >= 0) for row in bases]
    hidden = [np.flatnonzero(partner >= 0)[2:3] for partner in table]
    guess = np.concatenate(model_log_probabilities(model, sequences, hidden)).argmax(1)
    truth = np.concatenate([codes[place] for codes, place in zip(encode_bases(sequences), hidden)])
    assert (guess == truth).mean() > 0.7


def test_a_published_model_goes_the_same_way(shared_data):
    model = LanguageModel.load(str(shared_data / "rnabert"))
    assert (model.blocks, model.width, model.longest) == (6, 120, 440)
    (states,) = model.hidden_states(["ACGUACGU"], [0, 6])
    reference = model.model(
        **model.tokenizer("ACGUACGU", return_tensors="pt"), output_hidden_states=True
    ).hidden_states
    assert states.position_T.tolist() == list(range(8))  # its tokenizer adds no special tokens
    torch.testing.assert_close(states.values_TLD[:, 1], reference[6][0], atol=1e-5, rtol=1e-4)


def test_a_gpu_that_is_not_there_is_one_sentence(tiny_model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        ValueError, match="^there is no device 'cuda:1', torch sees 1 GPUs: choose auto or cpu$"
    ):
        LanguageModel.load(str(tiny_model), device="cuda:1")
