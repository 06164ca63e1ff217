"""On which frames a track is there: hand-made cases of the rule."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.errors import LabelsError
from posewarper.propagation.clip import present_frames
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track


def labels_of(tracks: dict[int, list[int]], labelled: list[int] | None = None) -> Labels:
    made = {i: Track(np.array(frames), np.zeros((len(frames), 1, 2))) for i, frames in tracks.items()}
    return Labels(Skeleton(("nose",)), made, None if labelled is None else np.array(labelled))


def span(*stretches: tuple[int, int]) -> list[int]:
    """Frames from each first to each last, both included."""
    return [frame for first, last in stretches for frame in range(first, last + 1)]


@pytest.mark.parametrize(
    ("own", "labelled", "n_frames", "expected"),
    [
        # One gap (10) at both ends.
        ([20, 30, 40], [20, 30, 40], 100, span((10, 50))),
        # The clip ends first.
        ([3, 10, 17], [3, 10, 17], 20, span((0, 19))),
        # A labelled frame without the track between two labels: the whole open stretch is out.
        ([10, 20, 40], [10, 20, 30, 40], 60, span((0, 20), (40, 50))),
        # Two such frames in one stretch, and one in another.
        ([0, 30, 50], [0, 10, 20, 30, 40, 50], 56, [0, 30, *span((50, 55))]),
        # Before the first and after the last label, up to but not on a labelled frame without the track.
        ([20, 30], [10, 20, 30, 40], 100, span((11, 39))),
        # Uneven labels: the spacing (10) in which most frames lie counts, not the track's own (40).
        ([30, 70], [30, 40, 50, 60, 70, 82], 200, [*span((20, 30)), *span((70, 80))]),
        # Labels that were added close together leave it as it was (20).
        ([30, 50, 51, 52, 72], [30, 50, 51, 52, 72], 200, span((10, 92))),
        # A nearer lacking frame cuts the end shorter than the gap.
        ([20, 40], [16, 20, 40, 60], 100, span((17, 59))),
        # Two spacings: most frames lie in the longer one.
        ([20, 24, 31], [20, 24, 31], 100, span((13, 38))),
        # One labelled frame: the gap is the whole clip.
        ([7], [7], 12, span((0, 11))),
        # One label of the track among several labelled frames.
        ([20], [0, 10, 20, 30], 50, span((11, 29))),
    ],
)
def test_rule(own, labelled, n_frames, expected):
    frames = present_frames(labels_of({3: own}, labelled), 3, n_frames)
    assert frames.dtype == np.int64
    assert frames.tolist() == expected


def test_other_tracks_decide_what_was_labelled():
    labels = labels_of({0: [0, 10, 20, 30], 1: [0, 30]})
    assert present_frames(labels, 0, 40).tolist() == span((0, 39))
    assert present_frames(labels, 1, 40).tolist() == [0, *span((30, 39))]


def test_extend_fills_the_clip():
    labels = labels_of({0: [10, 30]}, [10, 20, 30])
    assert present_frames(labels, 0, 50, extend=True).tolist() == span((0, 49))


def test_predictions_are_no_labels():
    # The track's instances on frames 11 to 19 lie on frames that nobody has labelled.
    labels = labels_of({0: span((10, 20)), 1: [15]}, [10, 30])
    assert present_frames(labels, 0, 50).tolist() == span((0, 29))
    for extend in (False, True):
        assert present_frames(labels, 1, 50, extend=extend).size == 0


def partial_labels(states: list[str], every: int = 10) -> Labels:
    """A track whose four keypoints are visible (v), absent (a) or not looked at (n) on every 10th frame.

    A second track is looked at wholly on all of them.
    """
    marks = np.array([list(state) for state in states])
    frames = every * np.arange(len(states))
    points = np.zeros((*marks.shape, 2))
    track = Track(frames, points, visibility=np.where(marks == "v", 2, 0), labelled=marks != "n")
    return Labels(Skeleton(tuple("abcd")), {0: track, 1: Track(frames, points)}, frames)


def test_a_labelled_frame_on_which_nobody_has_looked_at_the_track_does_not_cut_it():
    labels = partial_labels(["nnnn", "vvvv", "nnnn", "vvvv", "nnnn", "nnnn"])
    assert present_frames(labels, 0, 60).tolist() == span((0, 40))
    # One on which only some of it is said to be absent does not either.
    labels = partial_labels(["vvvv", "aann", "vvvv"])
    assert present_frames(labels, 0, 60).tolist() == span((0, 30))


def test_a_track_all_of_which_is_absent_is_not_there():
    labels = partial_labels(["vvvv", "aaaa", "vvvv", "aaaa"])
    assert present_frames(labels, 0, 60).tolist() == [0, *span((20, 29))]


def test_corrections_of_single_keypoints_leave_the_gap_as_it_is():
    frames = np.array([20, 30, 31, 32, 33, 40])
    labelled = np.ones((6, 4), bool)
    labelled[2:5, 1:] = False
    track = Track(frames, np.zeros((6, 4, 2)), visibility=labelled * 2)
    labels = Labels(Skeleton(tuple("abcd")), {0: track})
    assert present_frames(labels, 0, 60).tolist() == span((10, 50))
    # Where all labels are such, all of them count.
    few = Track(frames, np.zeros((6, 4, 2)), visibility=np.eye(6, 4) * 2)
    assert present_frames(Labels(Skeleton(tuple("abcd")), {0: few}), 0, 60).tolist() == span((13, 39))


def test_unknown_track():
    with pytest.raises(LabelsError, match="no track 5"):
        present_frames(labels_of({0: [1]}), 5, 10)
