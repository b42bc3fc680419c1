"""Synthetic photographs: appearance, rays, skin, hair, eyes, glasses, light and film."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "appearance": (
            "Appearance",
            "Beard",
            "Brows",
            "Clothes",
            "Film",
            "Gaze",
            "Glasses",
            "Hair",
            "Light",
            "Skin",
            "sample_appearance",
            "switch_off",
        ),
        "scene": ("Head", "Scene", "cast_pins", "head_of"),
        "renderer": ("Renderer",),
    },
)
