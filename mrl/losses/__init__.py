"""The Multiview Reprojection Loss, its criteria and what it is compared with; needs torch and mrl.geometry."""

from mrl import lazy_names

from . import balancing  # enters what combines parts in BALANCES
from .virtual_cameras import virtual_cameras  # the function, not the module of this name

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "criteria": (
            "BALANCES",
            "CRITERIA",
            "CompositeLoss",
            "Criterion",
            "Disentangled",
            "GeometricAlignmentLoss",
            "HomographyLoss",
            "HomoscedasticLoss",
            "ImageParts",
            "LogMultiviewReprojectionLoss",
            "LogTermsLoss",
            "MeanLogMultiviewReprojectionLoss",
            "MultiTermLoss",
            "MultiviewReprojectionLoss",
            "Parameter",
            "PixelAlignmentLoss",
            "ReprojectionLoss",
            "criterion_of",
            "flat_parameters",
            "loss_parameters",
        ),
        "functional": (
            "NORMS",
            "READINGS",
            "TRANSLATIONS",
            "example_batch",
            "geometric_alignment",
            "log_of_mean",
            "multi_term",
            "multiview_reprojection",
            "pixel_alignment",
            "reprojection",
            "terms",
        ),
        "virtual_cameras": (
            "VIRTUAL_CAMERAS",
            "at_distance",
            "batch_cameras",
            "orbit_cameras",
            "virtual_cameras",
            "with_true_camera",
        ),
    },
)
