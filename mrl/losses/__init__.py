"""The Multiview Reprojection Loss and what it is compared with. Needs torch and nothing else."""

from .criteria import *  # noqa: F403
