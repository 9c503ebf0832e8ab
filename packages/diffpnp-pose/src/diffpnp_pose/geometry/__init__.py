"""Rotations and the pinhole camera, with derivatives that stay finite at angles 0 and pi.

Conventions, used in the whole package:
    * points are rows in memory, `(..., n, 3)`, and columns in formulas: `X_camera = R X_object + t`;
    * a pose is `(w, t)`: the rotation vector `w` (axis times angle in radians, as in `cv2.Rodrigues`), then the
      translation `t` in the unit of the object's points;
    * the camera looks along +z, image x grows with camera x and image y with camera y; a camera whose x axis is
      flipped (UAVA's) is a `K` with negative `fx`;
    * `K` is `[[fx, skew, cx], [k10, fy, cy], [0, 0, 1]]` in pixels.
"""
