"""Tables as text, JSON and CSV."""

import json

from talktime_console.tables import Column, Output, Table, render

TABLE = Table(
    "things",
    "Things",
    (Column("name", "NAME"), Column("usd", "USD", right=True)),
    (("=HYPERLINK(1)", "0.10"), ("[bold]b", "-0.20"), ("c", None)),
    ("TOTAL", "-0.10"),
)


def test_json_keeps_money_as_text_and_empty_as_null() -> None:
    assert json.loads(render([TABLE], Output.JSON))["things"][1:] == [
        {"name": "[bold]b", "usd": "-0.20"},
        {"name": "c", "usd": None},
    ]


def test_csv_runs_no_formula_and_leaves_negative_amounts_numbers() -> None:
    assert render([TABLE], Output.CSV).splitlines() == ["name,usd", "'=HYPERLINK(1),0.10", "[bold]b,-0.20", "c,"]


def test_a_terminal_shows_names_as_they_are_and_the_total() -> None:
    text = render([TABLE], Output.TABLE, 80)
    assert "[bold]b" in text
    assert "TOTAL" in text
    assert "-0.10" in text
