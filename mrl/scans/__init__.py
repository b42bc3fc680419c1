"""Benchmarks against scans: MICC, H3DS, the look-alike, protocols, methods, reports, and which protocol to believe."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "micc": ("Subject", "read_frames", "read_micc"),
        "h3ds": ("h3ds_protocol", "read_h3ds"),
        "lookalike": ("build_lookalike",),
        "protocols": ("PROTOCOLS", "Comparison", "Face", "Protocol", "compare"),
        "methods": (
            "Method",
            "folder_predictions",
            "mean_face",
            "methods_of",
            "model_fit",
            "network_predictions",
        ),
        "evaluation": ("evaluate",),
        "report": ("write_report",),
        "protocol_study": ("StudyConfig", "load_protocol_study", "run_protocol_study"),
        "protocol_files": ("read_protocol",),
    },
)
