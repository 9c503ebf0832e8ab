"""How samples reach a model and come back as logits: kinds of data, augmentation, batch norm, whole sets."""
