"""Files: atomic writes, meshes, pictures, films, tables, paths and the parameters of notebooks."""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "files": ("atomic_write", "load_tensors", "read_json", "save_tensors", "sha256", "write_json"),
        "films": ("read_film_frame", "read_film_frames"),
        "meshes": ("Mesh", "read_mesh", "read_polygons", "write_mesh"),
        "parameters": ("check_fields", "check_parameters"),
        "paths": ("composed", "data_files", "existing", "expand"),
        "pictures": ("Picture", "read_picture"),
        "tables": ("read_csv", "read_numbers", "write_csv"),
    },
)
