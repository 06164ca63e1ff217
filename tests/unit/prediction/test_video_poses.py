"""What is given to ``predict``: labels that only say where to look, boxes, frames of a pipe."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clip_files import encode_clip
from posewarper.errors import ConfigError, LabelsError, PosewarperWarning
from posewarper.formats.labels import write_labels
from posewarper.model.network import ModelSpec
from posewarper.prediction.video import ClipPredictionConfig, predict
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, RunResult, Track

SIZE, N_FRAMES = (96, 128), 4
SKELETON, OTHER = Skeleton(("head", "tail")), Skeleton(("nose", "tail"))
ALONE = ClipPredictionConfig(aggregate="none", precision="float32")
LEFT, RIGHT = np.array([30.0, 40.0]), np.array([90.0, 60.0])
BOX = np.array([-10.0, -20.0, 20.0, 40.0])


class Centre(torch.nn.Module):
    """A pose network that finds the keypoints above and below the middle of each crop."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.spec = ModelSpec("none", SKELETON, (64, 64), 1.0, trained={"pose": 1}, targets="exact")

    def heatmaps(self, crops):
        maps = torch.zeros(len(crops), 2, 16, 16)
        maps[:, 0, 4, 8] = maps[:, 1, 12, 8] = 1
        return maps


def labels(skeleton: Skeleton = SKELETON, *, boxes: bool = True, image_size=SIZE) -> Labels:
    """Frame 1 with two figures, whose boxes lie around LEFT and RIGHT."""
    tracks = {}
    for i, middle in ((7, LEFT), (1, RIGHT)):
        given = np.array([[*(middle + BOX[:2]), *BOX[2:]]]) if boxes else None
        points = middle + np.array([[(0, -15), (0, 15)]])
        tracks[i] = Track(np.array([1]), points, boxes=given)
    return Labels(skeleton, tracks, image_size=image_size, n_frames=N_FRAMES)


@pytest.fixture
def clip(tmp_path, monkeypatch) -> Path:
    path = encode_clip(tmp_path / "clip.mp4", [np.full((*SIZE, 3), 90, np.uint8)] * N_FRAMES)
    with path.open("rb") as source:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=source))
        yield path


def middles(result: RunResult) -> list[list[float]]:
    return sorted(track.keypoints[0].mean(0).round(-1).tolist() for track in result.poses.tracks.values())


def test_labels_only_say_where_to_look(clip) -> None:
    result = predict(clip, Centre(), labels=labels(), config=ALONE)
    assert list(result.poses.tracks) == [1, 2] and middles(result) == [LEFT.tolist(), RIGHT.tolist()]
    # Ids of the poses are not those of the labels: nothing may match one with the other.
    assert not result.labels.tracks and not len(result.poses.labelled_frames)


def test_of_labels_of_other_keypoints_the_boxes_are_used(clip, tmp_path) -> None:
    write_labels(tmp_path / "labels.json", labels(OTHER))
    with pytest.warns(
        PosewarperWarning, match=r"labels\.json: .*\(nose, tail\) than the model \(head, tail\)"
    ):
        result = predict(clip, Centre(), labels=tmp_path / "labels.json", config=ALONE)
    assert result.poses.skeleton == SKELETON and middles(result) == [LEFT.tolist(), RIGHT.tolist()]
    with pytest.raises(LabelsError, match="not all of them have a box"):
        predict(clip, Centre(), labels=labels(OTHER, boxes=False), config=ALONE)


@pytest.mark.parametrize("from_pipe", [False, True])
def test_labels_of_another_size_are_refused(clip, from_pipe) -> None:
    with pytest.raises(LabelsError, match=r"another size[\s\S]*128 x 96[\s\S]*256 x 192"):
        predict("-" if from_pipe else clip, Centre(), labels=labels(image_size=(192, 256)), config=ALONE)


BOTH = np.array([[*(middle + BOX[:2]), *BOX[2:]] for middle in (LEFT, RIGHT)])


@pytest.mark.parametrize(
    ("boxes", "found"),
    [
        ([BOTH] * N_FRAMES, [LEFT, RIGHT]),
        ([BOTH[1]] * N_FRAMES, [RIGHT]),
        (np.stack([BOTH[:1]] * N_FRAMES), [LEFT]),
        ({0: BOTH, 2: BOTH[0].tolist()}, [LEFT, RIGHT]),
        ([BOTH.tolist(), [], [], []], [LEFT, RIGHT]),
    ],
)
@pytest.mark.parametrize("in_memory", [False, True])
def test_boxes_and_frames_may_be_arrays(clip, boxes, found, in_memory) -> None:
    video = np.full((N_FRAMES, *SIZE, 3), 90, np.uint8) if in_memory else clip
    result = predict(video, Centre(), boxes=boxes, config=ALONE)
    assert result.poses.n_frames == N_FRAMES and middles(result) == [middle.tolist() for middle in found]


@pytest.mark.parametrize(
    "boxes",
    [
        [BOTH] * 3,
        {4: BOTH},
        {-1: BOTH},
        {"0": BOTH},
        {0: BOTH[:, :3]},
        {0: BOTH * [1, 1, 0, 1]},
        {0: BOTH * np.nan},
        {0: "box"},
        3,
    ],
)
def test_boxes_that_do_not_fit_are_refused(clip, boxes) -> None:
    with pytest.raises(ConfigError, match="expected"):
        predict(clip, Centre(), boxes=boxes, config=ALONE)


def test_a_part_of_a_video(clip) -> None:
    result = predict(clip, Centre(), labels=labels(), span=range(1, 3), config=ALONE)
    assert result.poses.n_frames == N_FRAMES and middles(result) == [LEFT.tolist(), RIGHT.tolist()]
    assert all(track.frames.tolist() == [1, 2] for track in result.poses.tracks.values())
    with pytest.raises(LabelsError, match=r"no labels on the frames 2 to 3[\s\S]*labelled are the frames 1"):
        predict(clip, Centre(), labels=labels(), span=range(2, 4), config=ALONE)


@pytest.mark.parametrize("span", [range(2, 5), range(-1, 2), range(2, 2), range(0, 4, 2)])
@pytest.mark.parametrize("in_memory", [False, True])
def test_parts_that_are_none_are_refused(clip, span, in_memory) -> None:
    video = np.full((N_FRAMES, *SIZE, 3), 90, np.uint8) if in_memory else clip
    with pytest.raises(ConfigError, match="frames from 0 to 3"):
        predict(video, Centre(), boxes=[BOTH] * N_FRAMES, span=span, config=ALONE)


def test_a_pipe_has_no_parts(clip) -> None:
    with pytest.raises(ConfigError, match=r"frames come once[\s\S]*leave --frames out"):
        predict("-", Centre(), labels=labels(), span=range(1, 3), config=ALONE)


@pytest.mark.parametrize("frames", [(0, 9), (8, 9)])
def test_boxes_of_frames_that_did_not_come_are_told(clip, tmp_path, frames) -> None:
    boxes = [{"frame": frame, "bbox": [*(LEFT + BOX[:2]), *BOX[2:]]} for frame in frames]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    with pytest.warns(PosewarperWarning) as told:
        result = predict("-", Centre(), boxes=tmp_path / "boxes.json", config=ALONE)
    assert result.poses.n_frames == N_FRAMES
    said = [note for note in result.notes if "did not come" in note]
    assert len(said) == 1 and f"frame {next(f for f in frames if f >= N_FRAMES)} of 4" in said[0]
    assert said[0] in [str(one.message) for one in told]
