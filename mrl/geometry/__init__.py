"""Rotations, cameras, registration, and the topology and surface of triangle meshes.

Two functions share the name of their module and are imported from there: `mrl.geometry.relative_pose.relative_pose` and
`mrl.geometry.icp.icp`.
"""

from mrl import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "rotation": (
            "axis_angle_to_quaternion",
            "geodesic_angle",
            "matrix_to_quaternion",
            "normalize_quaternion",
            "quaternion_inverse",
            "quaternion_multiply",
            "quaternion_to_matrix",
            "random_quaternion",
            "random_quaternion_within",
            "rotate",
            "slerp",
        ),
        "camera": (
            "crop_intrinsics",
            "crop_to_pose",
            "intrinsics",
            "invert_pose",
            "look_at",
            "pose_matrix",
            "pose_to_crop",
            "project",
            "project_camera",
            "ray_rotation",
            "resize_intrinsics",
            "transform_points",
        ),
        "conventions": ("camera_pose", "euler_to_matrix", "rotation_6d_to_matrix", "weak_perspective"),
        "registration": ("apply_similarity", "register", "similarity_about"),
        "topology": ("adjacency", "area_vectors", "boundary_vertices", "edges", "vertex_normals", "weld"),
        "surface": ("Surface", "TriangleMesh"),
    },
)
