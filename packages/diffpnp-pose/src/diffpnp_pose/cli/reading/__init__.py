"""Files of annotations: images with keypoints or poses of one object."""
