"""The network, its metrics, and training from a configuration to a kept run."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "heads": ("HEADS", "texture_places"),
        "network": ("Prediction", "Reconstructor"),
        "metrics": ("METRICS", "control_predictions", "image_metrics", "summarize"),
        "configuration": ("TrainConfig", "config_from"),
        "criterion": ("make_criterion",),
        "preparation": ("Prepared", "open_splits", "prepare"),
        "run": ("Run", "keep_run", "read_history"),
        "evaluation": ("evaluate", "evaluate_controls"),
        "augmentation": ("Augmentation", "mirror"),
        "loop": ("fit", "train"),
        "gauge": ("align_to_template",),
        "export": ("export_network",),
    },
)
