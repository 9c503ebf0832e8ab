"""Networks that several packages train: those of timm and torchvision, with weights that the user has."""
