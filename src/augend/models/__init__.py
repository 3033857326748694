"""Networks: the papers' own, and those of timm and torchvision by name, all as named stages."""

from augend.models.factory import build
from augend.models.split import default_split, split_model
from augend.models.stages import Chain, Stages, as_stages

__all__ = ["Chain", "Stages", "as_stages", "build", "default_split", "split_model"]
