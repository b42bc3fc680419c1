"""From a photograph to a face in three dimensions."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "reconstruction": ("Reconstruction", "detect_face", "export_now", "reconstruct", "save_prediction"),
    },
)
