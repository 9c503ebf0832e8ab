"""Heat-maps: Gaussian targets, and keypoints read from predicted maps.

Coordinates are pixels of the input image, x then y. A grid says where cell `i` of `W` lies in an image `width` wide:
    * "inclusive": `i / W * width`, the top left corner of the cell, as in the code published with the paper;
    * "half_pixel": `(i + 1/2) / W * width`, the cell's centre (as in DSNT), in which resizing an image moves nothing.
"""
