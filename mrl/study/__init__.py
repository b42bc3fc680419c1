"""Which runs there are, running them, and comparing them: fronts, sweeps and groups of people."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "runs": ("grid_runs", "long_runs", "select_settings", "study_runs"),
        "execution": ("execute_run", "load_study", "run_study"),
        "comparison": ("headline", "paired_difference", "selected_settings"),
        "fronts": ("front_figure", "pareto_front"),
        "sweeps": ("Sweep", "build_sweeps", "measure_sweeps", "predict_changed", "sweep_runs"),
        "diversity": ("balanced", "gap_table", "groups_of", "learned_share"),
    },
)
