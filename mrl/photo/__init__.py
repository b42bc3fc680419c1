"""From a photograph to a face in three dimensions."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "detection": ("Detection", "detect_face", "detect_faces"),
        "camera": ("camera_matrices", "crop_of_box", "focal_length"),
        "refinement": ("Calibration", "refine_pose_and_shape", "refine_together"),
        "reconstruction": (
            "Reconstruction",
            "reconstruct",
            "reconstruct_faces",
            "reconstruct_film",
            "reconstruct_person",
        ),
        "uncertainty": ("calibrate",),
        "evaluation": ("errors_on_photographs", "read_annotations"),
        "texture": ("project_texture", "write_textured"),
        "card": ("model_card",),
        "files": ("export_now", "reconstruct_folder", "save_film", "save_prediction"),
    },
)
