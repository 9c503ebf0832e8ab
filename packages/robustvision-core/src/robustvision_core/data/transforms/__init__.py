"""Images to other images: augmentation, resizing, colour."""
