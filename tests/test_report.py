"""Means, differences and tables of a benchmark."""

import pytest

from mrl.scans.report import differences, failures, paired, report_row, summarise


def test_methods_are_compared_on_the_subjects_that_all_have():
    rows = [
        {"subject": s, "protocol": "now", "method": m, "error": e, "coverage": 1.0, "converged": True}
        for m, es in (("a", [1, 2, None, None]), ("b", [1, 2, 3, 4]))
        for s, e in enumerate(es)
    ]
    a, b = summarise(rows)
    assert (a["mean"], b["mean"], a["mean_common"], b["mean_common"], a["common"]) == (1.5, 2.5, 1.5, 1.5, 2)
    assert "low" not in a and b["low"] <= 2.5 <= b["high"] and report_row(a)[2] == ""


def test_paired_differences():
    rows = [
        {"subject": s, "protocol": "now", "method": m, "error": e, "problem": ""}
        for m, es in (("a", [1, 2, None]), ("b", [2, 4, 6]))
        for s, e in enumerate(es)
    ]
    (mean, low, high), n = paired(rows, "now", "b", "a")
    assert (mean, n) == (1.5, 2) and low <= mean <= high
    with pytest.raises(ValueError, match="no subject that both"):
        paired(rows, "deng2019", "b", "a")


def row(method, subject, error, **more):
    return {
        "subject": subject,
        "protocol": "now",
        "method": method,
        "error": error,
        "coverage": 1.0,
        "converged": True,
        "problem": "" if error else "it failed",
        "scan": "frontal1",
    } | more


def test_a_method_without_any_result_compares_with_nobody():
    rows = [row(m, s, e) for m, es in (("a", [1, 2]), ("b", [2, 3]), ("c", [None, None])) for s, e in enumerate(es)]
    assert [line.get("mean_common") for line in summarise(rows)] == [1.5, 2.5, None] and summarise(rows)[2][
        "failed"
    ] == 2


def test_a_lost_scan_is_said_where_another_one_counts():
    rows = [row("a", 1, 1.0, problem="frontal2: damaged"), row("a", 2, None), row("a", 3, 1.0)]
    assert failures(rows) == [[1, "measured on frontal1 only: frontal2: damaged", "now: a"], [2, "it failed", "now: a"]]


@pytest.mark.parametrize(
    "errors, said",
    [
        ([3.0, 3.5, 4.0], "the mean face is BETTER"),
        ([1.0, 2.6, 2.0], "no difference from the mean face"),
        ([1.0, 1.5, 1.2], None),
        ([1.0], None),
    ],
)
def test_verdicts(errors, said):
    rows = [
        row(m, s, e)
        for m, es in (("ours", errors), ("mean face", [2.0, 2.1, 2.2][: len(errors)]))
        for s, e in enumerate(es)
    ]
    (text,) = differences(rows, "now", ["ours", "mean face"])
    assert (said in text if said else "mean face that" not in text and "BETTER" not in text) and ("[" in text) == (
        len(errors) > 2
    )
