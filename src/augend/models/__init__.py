"""Networks: the papers' own, and those of timm and torchvision by name, all as named stages."""
