"""What is replaced where the language model goes on from other hidden states (`fidelity.replaced_states`)."""

import numpy as np
import pytest
import torch

from sae_rna.analysis.fidelity import masked_log_probabilities, replaced_states
from sae_rna.analysis.language_model import choose_masked
from sae_rna.extraction.language_model import LanguageModel

SEQUENCES = [
    "GGGAAACCC",
    "GGCNACGUUAGCC",
    "ACGU" * 8,
    "GCGCAAAAGCGC",
]  # of several lengths, so that there is padding; one with N


@pytest.fixture(scope="module", params=["with a final norm", "without one", "published"])
def model(request, tiny_model, tmp_path_factory):
    """Tiny models with random weights: RiNALMo, and RNABERT, whose encoder has no final layer norm; and
    RNABERT as it was published."""
    if request.param == "with a final norm":
        return LanguageModel.load(str(tiny_model), masked=True)
    if request.param == "published":
        folder = request.getfixturevalue("shared_data") / "rnabert"
        if not (folder / "model.safetensors").exists():
            pytest.skip(f"needs RNABERT's weights: there is no {folder}")
        return LanguageModel.load(str(folder), masked=True)
    from multimolecule import RnaBertConfig, RnaBertForMaskedLM, RnaTokenizer

    folder = tmp_path_factory.mktemp("tiny-rnabert")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "max_position_embeddings": 64,
    }
    RnaBertForMaskedLM(RnaBertConfig(**sizes)).save_pretrained(folder)
    RnaTokenizer().save_pretrained(folder)
    return LanguageModel.load(str(folder), masked=True)


def masked_tokens(model, masked):
    """Token ids of `SEQUENCES` in one batch with the masked positions hidden, and where its nucleotides are,
    by plain loops."""
    tokens = model.tokenize(SEQUENCES)
    where = torch.zeros_like(tokens["input_ids"], dtype=torch.bool)
    first = int(
        len(model.tokenizer("A")["input_ids"]) > 1
    )  # RNABERT was trained without special tokens around its sequences
    for row, sequence in enumerate(SEQUENCES):
        for position, base in enumerate(sequence):
            where[row, first + position] = base in "ACGU"
        tokens["input_ids"][row, torch.as_tensor(first + masked[row])] = model.tokenizer.mask_token_id
    return tokens, where


def test_the_identity_changes_nothing_bit_for_bit_at_any_layer(model):
    masked = choose_masked(SEQUENCES, 0)
    own = masked_log_probabilities(model, SEQUENCES, masked)
    assert own.shape == (sum(map(len, masked)), 4) and len(own) > 5
    np.testing.assert_allclose(np.exp(own).sum(1), 1, atol=1e-5)
    for layer in range(model.blocks + 1):
        np.testing.assert_array_equal(
            masked_log_probabilities(model, SEQUENCES, masked, layer, lambda values_TD: values_TD), own
        )
        assert (
            masked_log_probabilities(model, SEQUENCES, masked, layer, torch.zeros_like) != own
        ).mean() > 0.9


def test_what_is_replaced_are_the_hidden_states_of_the_masked_input_in_the_numbering_of_the_library(model):
    masked = choose_masked(SEQUENCES, 0)
    tokens, where = masked_tokens(model, masked)
    with torch.inference_mode():
        expected = model.model(**tokens, output_hidden_states=True).hidden_states
    seen = []
    for layer in range(model.blocks + 1):
        masked_log_probabilities(
            model, SEQUENCES, masked, layer, lambda values_TD: seen.append(values_TD) or values_TD
        )
        rows = model.batches(SEQUENCES)[0].tolist()  # the one batch is sorted by length
        torch.testing.assert_close(
            seen[-1], torch.cat([expected[layer][row][where[row]] for row in rows]), atol=1e-5, rtol=1e-4
        )
    assert len(seen) == model.blocks + 1


def test_nucleotides_and_masked_ones_are_replaced_and_nothing_else_is(model):
    masked = choose_masked(SEQUENCES, 0)
    tokens, where = masked_tokens(model, masked)
    with torch.inference_mode():
        own = model.model(**tokens, output_hidden_states=True).hidden_states
        for layer in range(model.blocks + 1):
            reader = model.model.model.encoder.layer[layer] if layer < model.blocks else model.model.lm_head
            entering = []
            with replaced_states(model, layer, lambda values_TD: torch.full_like(values_TD, 7.0)):
                hook = reader.register_forward_pre_hook(lambda _, args: entering.append(args[0]))  # noqa: B023
                model.model(**tokens)
                hook.remove()
            states = entering[0] if layer < model.blocks else entering[0]["last_hidden_state"]
            assert (states[where] == 7).all()
            torch.testing.assert_close(states[~where], own[layer][~where], atol=1e-5, rtol=1e-4)


def test_one_state_for_all_in_the_last_layer_gives_the_heads_one_answer(model):
    masked = choose_masked(SEQUENCES, 0)
    state = torch.linspace(-1, 1, model.width)
    mine = masked_log_probabilities(
        model, SEQUENCES, masked, model.blocks, lambda values_TD: state.expand_as(values_TD)
    )
    bases = model.tokenizer.convert_tokens_to_ids(list("ACGU"))
    expected = (
        model.model.lm_head({"last_hidden_state": state[None, None]}).logits[0, 0, bases].log_softmax(-1)
    )
    np.testing.assert_allclose(mine, np.broadcast_to(expected.numpy(), mine.shape), atol=1e-5)


def test_nothing_stays_behind_not_even_after_an_error(model):
    def hooks():
        return [
            len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.model.modules()
        ]

    def fail(values_TD):
        raise RuntimeError("no replacement")

    masked = choose_masked(SEQUENCES, 0)
    own, before = masked_log_probabilities(model, SEQUENCES, masked), hooks()
    for layer in (0, 1, model.blocks):
        with pytest.raises(RuntimeError, match="no replacement"):
            masked_log_probabilities(model, SEQUENCES, masked, layer, fail)
        assert hooks() == before
    np.testing.assert_array_equal(masked_log_probabilities(model, SEQUENCES, masked), own)


def test_a_missing_layer_is_refused(tiny_model):
    model = LanguageModel.load(str(tiny_model), masked=True)
    with pytest.raises(ValueError, match="layer 4 .* blocks 1 to 3"):
        masked_log_probabilities(model, SEQUENCES, choose_masked(SEQUENCES, 0), 4, torch.zeros_like)
