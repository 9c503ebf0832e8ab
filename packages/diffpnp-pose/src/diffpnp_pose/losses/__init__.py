"""Losses of keypoint-based pose estimation with a differentiable PnP layer (Chen et al. 2020 and its reproduction).

`x` are predicted image points, `x*` true ones, `y` the solved pose, `pi` the projection. Image points are in pixels;
means run over items, points and coordinates, so that the number of points does not matter. The published code does the
same, whereas the paper writes sums.
"""
