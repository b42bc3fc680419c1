"""Landmarks, the population of heads and morphable models; `mrl.faces.sources` reads the models of others."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "landmarks": ("IBUG", "LANDMARKS", "Landmark", "eye_distance", "ibug_landmarks", "named_points"),
        "population": ("Heads", "Population", "load_population", "people_where", "split_identities"),
        "morphable": (
            "MorphableModel",
            "decimate",
            "fit_morphable_model",
            "load_morphable_model",
            "morphable_model_of",
            "principal_components",
            "save_morphable_model",
        ),
        "expressions": ("Expressions", "draw_expressions", "load_expressions"),
        "carrier": ("build_population", "into_head_frame", "put_into_head", "wrap"),
        "sources": ("FACE_MODELS", "read_face_model"),
    },
)
