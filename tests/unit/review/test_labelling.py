"""What a labeller has said becomes labels, and labels become what a labeller has said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posewarper.formats.labels import read_labels, write_labels
from posewarper.review.labelling import GONE, Labelling, row_from_json, skeleton_from_json
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

SKELETON = Skeleton(("nose", "left_paw", "right_paw"), ((0, 1),))
FACTS = (48, 64), 30, "clip"

_places = st.floats(-10, 80, allow_nan=False, width=64)
_marks = st.none() | st.just(0) | st.tuples(_places, _places, st.sampled_from([1, 2]))
_rows = st.just(GONE) | st.lists(_marks, min_size=3, max_size=3).map(tuple)


def labelling_of(rows) -> Labelling:
    made = Labelling(SKELETON, names={i: "" for i in rows})
    for track, own in rows.items():
        for frame, row in own.items():
            made.put(track, frame, row)
    return made


def test_labels_hold_what_was_said():
    one = {3: ((1.5, 2.5, 2), 0, None), 9: ((4.0, 5.0, 1), None, None)}
    made = labelling_of({0: one, 1: {3: ((7, 8, 2), None, None), 9: GONE}})
    labels = made.to_labels(None, *FACTS)
    assert labels is not None
    assert labels.labelled_frames.tolist() == [3, 9]
    first, second = labels.tracks[0], labels.tracks[1]
    assert first.frames.tolist() == [3, 9]
    assert first.visibility.tolist() == [[2, 0, 0], [1, 0, 0]]
    assert first.labelled.tolist() == [[True, True, False], [True, False, False]]
    assert first.keypoints[0, 0].tolist() == [1.5, 2.5]
    assert second.frames.tolist() == [3], "a track that is not there has no row"


def test_a_track_that_nobody_has_looked_at_is_not_taken_to_be_absent():
    made = labelling_of({0: {3: ((1, 2, 2), None, None)}, 1: {9: ((1, 2, 2), None, None)}})
    labels = made.to_labels(None, *FACTS)
    assert labels is not None
    assert labels.tracks[0].frames.tolist() == [3, 9]
    assert not labels.tracks[0].labelled[1].any()


def test_nothing_placed_makes_no_labels():
    assert Labelling().to_labels(None, *FACTS) is None
    assert labelling_of({0: {3: (0, 0, 0), 4: GONE}}).to_labels(None, *FACTS) is None


@pytest.mark.filterwarnings("ignore::posewarper.errors.PosewarperWarning")
@settings(max_examples=60, deadline=None)
@given(
    rows=st.dictionaries(
        st.integers(0, 2), st.dictionaries(st.integers(0, 29), _rows, max_size=5), max_size=3
    )
)
def test_what_was_said_survives_labels_and_the_file(rows, tmp_path_factory):
    said = labelling_of(
        {i: {f: row for f, row in own.items() if row != (None,) * 3} for i, own in rows.items()}
    )
    labels = said.to_labels(None, *FACTS)
    if labels is None:
        return
    path = tmp_path_factory.mktemp("labels") / "labels.json"
    write_labels(path, labels, format="posetrack")
    again = Labelling.of(read_labels(path))
    for i in labels.tracks:
        for frame in labels.labelled_frames.tolist():
            assert again.row(i, frame) == said.row(i, frame)


def test_boxes_stay_with_instances_that_nobody_has_touched():
    keypoints = np.arange(12, dtype=float).reshape(2, 3, 2)
    track = Track([3, 9], keypoints, boxes=[[1, 2, 3, 4], [5, 6, 7, 8]])
    begun = Labels(SKELETON, {0: track}, image_size=(48, 64), n_frames=30, frame_names={3: "three.png"})
    said = Labelling.of(begun)
    said.put(0, 9, ((1.0, 1.0, 2), *said.marks(0, 9)[1:]))
    labels = said.to_labels(begun, *FACTS)
    assert labels is not None
    assert labels.tracks[0].boxes[0].tolist() == [1, 2, 3, 4]
    assert np.isnan(labels.tracks[0].boxes[1]).all()
    assert labels.frame_names == {3: "three.png"}


@pytest.mark.parametrize(
    "value",
    ["here", [None, None], [1, None, None], [[1, 2, 3], None, None], [[1, "2x", 2], None, None], {}, 3],
)
def test_rows_that_are_none_are_refused(value):
    with pytest.raises((ValueError, TypeError)):
        row_from_json(value, 3)


def test_skeletons_are_read_with_mirror_pairs_from_their_names():
    skeleton = skeleton_from_json({"names": [" left  ear ", "right ear"], "edges": [[0, 1]]})
    assert skeleton is not None
    assert skeleton.names == ("left ear", "right ear")
    assert skeleton.flip_pairs == ((0, 1),)
    for wrong in (
        {},
        {"names": "ab"},
        {"names": ["a", " "]},
        {"names": ["a"], "colour": 1},
        {"names": [["a"]]},
        [],
    ):
        with pytest.raises(ValueError):
            skeleton_from_json(wrong)
