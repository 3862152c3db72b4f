"""Markdown tables of commands."""

from models.common.text import markdown_table


def test_columns_are_aligned_and_a_pipe_does_not_end_its_cell() -> None:
    assert markdown_table(("name", "ms"), [("a|b", "1.5"), ("", "2")], right=[1]).splitlines() == [
        "| name | ms |",
        "|---|---:|",
        "| a∣b | 1.5 |",
        "|  | 2 |",
    ]


def test_a_table_without_rows_has_its_head() -> None:
    assert markdown_table(("name",), [], right=()) == "| name |\n|---|"
