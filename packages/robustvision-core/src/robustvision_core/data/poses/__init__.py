"""Images of objects with their poses, keypoints and cameras."""
