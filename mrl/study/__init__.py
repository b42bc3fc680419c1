"""Which runs there are, running them, and comparing them: fronts, sweeps and groups of people."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "runs": ("combination_runs", "grid_runs", "long_runs", "select_settings", "settled_runs", "study_runs"),
        "execution": ("execute_run", "load_study", "run_study"),
        "comparison": ("headline", "paired_difference", "selected_settings"),
        "fronts": ("front_figure", "pareto_front"),
        "findings": ("combination_findings", "curve_figure", "curves", "reason_findings", "settled_findings"),
        "sweeps": ("Sweep", "build_sweeps", "measure_sweeps", "predict_changed", "sweep_runs"),
        "diversity": ("balanced", "gap_table", "groups_of", "learned_share"),
    },
)
