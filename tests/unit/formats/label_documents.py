"""COCO files for the tests to read and to damage."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ["nose", "left_eye", "right_eye"]


@dataclass
class FakeVideo:
    n_frames: int = 100
    image_size: tuple[int, int] = (480, 640)
    frame_names: tuple[str, ...] = ()
    path: str = "clip.mp4"


def a_document(frames: tuple[int, ...] = (3, 10), tracks: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    """A native label file: tracks on frames, frame 20 not labelled and without annotations."""
    images = [
        {
            "id": 1000 + f,
            "file_name": f"clip/{f:06d}.jpg",
            "vid_id": "1",
            "frame_id": f,
            "nframes": 100,
            "width": 640,
            "height": 480,
            "is_labeled": f != 20,
        }
        for f in (*frames, 20)
    ]
    annotations = [
        {
            "id": 10 * f + t,
            "image_id": 1000 + f,
            "category_id": 1,
            "track_id": t,
            "bbox": [10.0, 20.0, 50.0, 60.0],
            "iscrowd": 0,
            "keypoints": [100.1 * (t + 1) + f, 50.25, 2, 110, 45.7, 1, 0, 0, 0 if f != 10 else 2],
        }
        for f in frames
        for t in tracks
    ]
    category = {"id": 1, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}
    return {
        "info": {"video": "clip.mp4"},
        "images": images,
        "annotations": annotations,
        "categories": [category],
    }


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """The same without the fields of PoseTrack."""
    document = copy.deepcopy(document)
    for image in document["images"]:
        for key in ("vid_id", "frame_id", "nframes", "is_labeled"):
            del image[key]
    for annotation in document["annotations"]:
        del annotation["track_id"]
    return document


def save(folder: Path, document: object, name: str = "labels.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def two_videos() -> dict[str, Any]:
    document, other = a_document(), a_document(frames=(4,), tracks=(5,))
    for image in other["images"]:
        image |= {"id": image["id"] + 500, "vid_id": "2", "file_name": f"other/{image['frame_id']:06d}.jpg"}
    for annotation in other["annotations"]:
        annotation |= {"id": 999, "image_id": annotation["image_id"] + 500}
    return {
        **document,
        "info": {},
        "images": document["images"] + other["images"],
        "annotations": document["annotations"] + other["annotations"],
    }


def write_coco(path: Path, names: list[str]) -> Path:
    """Write plain COCO with a keypoint on each of some images."""
    document = {
        "images": [{"id": n + 1, "file_name": name} for n, name in enumerate(names)],
        "annotations": [
            {"id": n + 1, "image_id": n + 1, "category_id": 1, "keypoints": [5 + n, 6, 2]}
            for n in range(len(names))
        ],
        "categories": [{"id": 1, "name": "animal", "keypoints": ["head"]}],
    }
    path.write_text(json.dumps(document))
    return path
