"""The model card's tables."""

from model_card import curve_table, recipes_text, runs_text, stages_table


def test_the_curve_keeps_its_first_and_last_report():
    scores = {"accuracy": 0.5, "paired": 0.625, "loss": 1.0}
    history = [{"nucleotides": 1e6 * n, "rate": 0.002, "stage": 5, "validation": scores} for n in range(100)]
    table = curve_table(history, rows=5)
    assert table["million nucleotides"].tolist() == ["0.0", "25.0", "50.0", "74.0", "99.0"]
    assert table.validation.iloc[0] == "0.500 / 0.625 / 1.000"
    assert len(curve_table(history[:3])) == 3


def test_a_recipe_that_was_changed_is_told():
    recipes = [
        {"from step": 0, "recipe": {"families": 0.6, "seed": 0}},
        {"from step": 2048, "recipe": {"families": 0.5, "seed": 0}},
    ]
    assert (
        recipes_text({"recipes": recipes}) == "Changed on the way: at step 2,048: families from 0.6 to 0.5."
    )
    assert recipes_text({"recipes": recipes[:1]}) == "Nothing was changed on the way."


def test_every_grammar_has_a_row():
    assert stages_table([0.1] * 5).shape == (5, 6)


def test_the_runs_before_are_named_first_to_last():
    first = {"seen": 142.5e6, "recipe": {"family_share": 0.4}}
    second = {"seen": 67.6e6, "recipe": {"families": 0.65, "redrawn": 0.2}, "start": first}
    text = runs_text({"seen": 1.0, "start": second})
    assert text == (
        ", after 142.5 million nucleotides and 67.6 million nucleotides (65% families and 20% redrawn at the "
        "end) in runs from whose weights it went on"
    )
    assert runs_text(first) == ""
