from __future__ import annotations

import subprocess
import sys

import diffpnp_pose


def test_import_loads_torch_alone() -> None:
    heavy = "cv2", "torchvision", "kornia", "pytorch3d", "scipy", "robustvision_core", "matplotlib"
    code = f"import sys, diffpnp_pose; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_exist_and_are_documented() -> None:
    assert len(diffpnp_pose.__all__) == len(set(diffpnp_pose.__all__))
    for name in diffpnp_pose.__all__:
        assert getattr(diffpnp_pose, name).__doc__, name
