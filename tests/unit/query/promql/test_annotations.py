"""Warnings and infos of a query."""

from sluiceway.query.promql.annotations import ANNOTATIONS_MAX, Annotations


def test_that_an_answer_lags_is_told_however_much_else_is() -> None:
    annotations = Annotations("x")
    for number in range(ANNOTATIONS_MAX + 5):
        annotations.warn(f"no {number}", 0)
    annotations.pass_on("the answer lags")
    assert "the answer lags" in annotations.warnings
    assert len(annotations.warnings) == ANNOTATIONS_MAX + 1
