"""The clip and the keypoints with which the page is tried, and what its browser sends."""

from posewarper.skeletons import Skeleton

N_FRAMES, HEIGHT, WIDTH = 12, 48, 64
SKELETON = Skeleton(("nose", "left_paw", "right_paw"), ((0, 1),))
HOST = "127.0.0.1:8123"
FROM_PAGE = {"Origin": f"http://{HOST}", "Content-Type": "application/json"}
