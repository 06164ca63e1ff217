"""COCO files with the structure that CVAT ("COCO Keypoints 1.0") and Label Studio export."""

from __future__ import annotations

from typing import Any


def cvat_export() -> dict[str, Any]:
    """Two mice that are tracks, on frames 10 to 13 of a video; frame 12 is interpolated for both.

    Labels that are no skeletons have categories without keypoints, whose ids leave gaps, since the parts of a
    skeleton are labels too. Points outside of the image have visibility 0 and keep their coordinates.
    """
    poses = {
        (10, 4): ([10.5, 20.25, 2, 30.0, 40.0, 1, 50.0, 60.0, 2], True),
        (10, 7): ([110.5, 20.25, 2, 130.0, 40.0, 2, 150.0, 60.0, 0], True),
        (11, 4): ([11.5, 20.25, 2, 31.0, 40.0, 2, 51.0, 60.0, 2], False),
        (11, 7): ([111.5, 20.25, 2, 131.0, 40.0, 2, 151.0, 60.0, 2], True),
        (12, 4): ([12.5, 20.25, 2, 32.0, 40.0, 2, 52.0, 60.0, 2], False),
        (12, 7): ([112.5, 20.25, 2, 132.0, 40.0, 2, 152.0, 60.0, 2], False),
        (13, 4): ([13.5, 20.25, 2, 33.0, 40.0, 2, 53.0, 60.0, 2], True),
        (13, 7): ([113.5, 20.25, 2, 133.0, 40.0, 2, 153.0, 60.0, 2], True),
    }
    annotations = [
        {
            "id": n + 1,
            "image_id": frame + 1,
            "category_id": 2,
            "segmentation": [],
            "area": 1590.0,
            "bbox": [keypoints[0], 20.25, 39.5, 39.75],
            "iscrowd": 0,
            "attributes": {"sex": "f", "occluded": False, "track_id": track, "keyframe": keyframe},
            "keypoints": keypoints,
            "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
        }
        for n, ((frame, track), (keypoints, keyframe)) in enumerate(poses.items())
    ]
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {key: "" for key in ("contributor", "date_created", "description", "url", "version", "year")},
        "categories": [
            {"id": 1, "name": "cage", "supercategory": "", "keypoints": [], "skeleton": []},
            {
                "id": 2,
                "name": "mouse",
                "supercategory": "",
                "keypoints": ["nose", "left_ear", "tail"],
                "skeleton": [[1, 2], [1, 3]],
            },
            {"id": 6, "name": "food", "supercategory": "", "keypoints": [], "skeleton": []},
        ],
        "images": [
            {
                "id": frame + 1,
                "width": 320,
                "height": 240,
                "file_name": f"frame_{frame:06d}.PNG",
                "license": 0,
                "flickr_url": "",
                "coco_url": "",
                "date_captured": 0,
            }
            for frame in range(10, 16)
        ],
        "annotations": annotations,
    }


def label_studio_export() -> dict[str, Any]:
    """One mouse on frames 7 and 12, with a rectangle on frame 7; frame 30 was not labelled."""
    names = [f"images/1a2b3c4{n}-frame_{frame:04d}.png" for n, frame in enumerate((7, 12, 30))]
    return {
        "images": [{"width": 320, "height": 240, "id": i, "file_name": name} for i, name in enumerate(names)],
        "categories": [
            {"id": 0, "name": "mouse"},
            {
                "id": 1,
                "name": "default",
                "supercategory": "default",
                "keypoints": ["nose", "left_ear", "tail"],
                "skeleton": [],
            },
        ],
        "annotations": [
            {
                "id": 0,
                "image_id": 0,
                "category_id": 0,
                "segmentation": [],
                "bbox": [10.0, 20.0, 40.0, 40.0],
                "ignore": 0,
                "iscrowd": 0,
                "area": 1600.0,
            },
            {
                "id": 1,
                "image_id": 0,
                "category_id": 1,
                "keypoints": [11, 20, 2, 30, 40, 2, 50, 60, 2],
                "num_keypoints": 3,
                "bbox": [11, 20, 39, 40],
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 1,
                "category_id": 1,
                "keypoints": [12, 21, 2, 0, 0, 0, 51, 61, 2],
                "num_keypoints": 2,
                "bbox": [12, 21, 39, 40],
                "iscrowd": 0,
            },
        ],
        "info": {
            "year": 2025,
            "version": "1.0",
            "description": "",
            "contributor": "Label Studio",
            "url": "",
            "date_created": "2025-11-03 10:12:13.456789",
        },
    }
