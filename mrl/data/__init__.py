"""Data sets: configuration, cameras, rendering, storage, imported photographs and `FaceImages`."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "configuration": ("CropConfig", "DataConfig"),
        "cameras": ("cameras_around", "detector_crop", "sample_cameras"),
        "store": ("open_dataset", "read_record", "verify_dataset", "write_dataset"),
        "rendered": ("DATA_VERSION", "build_dataset", "dataset_folder", "plan_labels", "render_image"),
        "dataset": ("FaceImages", "batches"),
        "photographs": ("Photograph", "crop_photograph", "import_photographs", "read_photographs"),
    },
)
