"""Means, differences and tables of a benchmark."""
import pytest

from mrl.report import paired, report_row, summarise


def test_methods_are_compared_on_the_subjects_that_all_have():
    rows = [{"subject": s, "protocol": "now", "method": m, "error": e, "coverage": 1.0, "converged": True} for m, es in (("a", [1, 2, None, None]), ("b", [1, 2, 3, 4])) for s, e in enumerate(es)]
    a, b = summarise(rows)
    assert (a["mean"], b["mean"], a["mean_common"], b["mean_common"], a["common"]) == (1.5, 2.5, 1.5, 1.5, 2)
    assert "low" not in a and b["low"] <= 2.5 <= b["high"] and report_row(a)[2] == ""


def test_paired_differences():
    rows = [{"subject": s, "protocol": "now", "method": m, "error": e, "problem": ""} for m, es in (("a", [1, 2, None]), ("b", [2, 4, 6])) for s, e in enumerate(es)]
    (mean, low, high), n = paired(rows, "now", "b", "a")
    assert (mean, n) == (1.5, 2) and low <= mean <= high
    with pytest.raises(ValueError, match="no subject that both"):
        paired(rows, "deng2019", "b", "a")
