"""Figures and widgets."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "plots": (
            "band_figure",
            "camera_figure",
            "distribution_figure",
            "faces_figure",
            "heat_figure",
            "history_figure",
            "interval_figure",
            "mesh_figure",
            "mesh_overlay",
            "overlay_figure",
            "present",
            "slider_figure",
            "textured_figure",
        ),
        "explorers": ("Explorer", "face_explorer", "virtual_camera_explorer"),
        "display": ("markdown_table", "store_pictures"),
    },
)
