"""Intervals over seeds and over people, and comparisons of groups."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "intervals": ("band_statistics", "bootstrap_interval", "interval", "medians"),
        "groups": ("group_difference", "group_means", "holm", "largest_gap", "permutation_test", "two_way"),
    },
)
