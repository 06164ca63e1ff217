"""Make the picture of the README out of what ``posewarper demo`` left: labelled and computed frames in a row.

posewarper demo --out posewarper_demo
python docs/make_picture.py posewarper_demo
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from posewarper.formats.labels import read_poses
from posewarper.reporting.overlay import draw_pose
from posewarper.video.source import open_video

FRAMES = (67, 70, 73, 76, 79, 82)  # the turn, from one label to the next
HEIGHT, WIDTH = 390, 250  # of the part of a frame that is shown
SCALE = 0.9
GOLD, WHITE = (255, 215, 0), (255, 255, 255)
PICTURE = Path(__file__).parent / "pictures" / "demo.jpg"


def main(folder: Path) -> None:
    """Write the picture."""
    poses = read_poses(folder / "poses.json")
    track = poses.tracks[0]
    cells = []
    with open_video(folder / "clip.mp4") as video:
        for frame in FRAMES:
            row = int(np.searchsorted(track.frames, frame))
            drawn = draw_pose(
                video[frame], track.keypoints[row], poses.skeleton, scores=track.keypoint_scores[row]
            )
            x, y = np.nanmean(track.keypoints[row], axis=0)
            left = int(np.clip(x - WIDTH / 2, 0, video.image_size[1] - WIDTH))
            top = int(np.clip(y - HEIGHT / 2, 0, video.image_size[0] - HEIGHT))
            cell = np.ascontiguousarray(drawn[top : top + HEIGHT, left : left + WIDTH])
            labelled = frame in poses.labelled_frames
            text, colour = (f"{frame} label", GOLD) if labelled else (str(frame), WHITE)
            cv2.rectangle(cell, (0, 0), (12 * len(text) + 8, 26), colour, -1)
            cv2.putText(cell, text, (5, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
            cells.append(cell)
    sheet = np.hstack(cells)
    sheet = cv2.resize(sheet, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
    PICTURE.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(PICTURE), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
