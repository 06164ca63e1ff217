"""What sleap-io alone reads: SLEAP's analysis files, JABS, AlphaTracker; and what it says is passed on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from label_samples import mixed_labels
from other_formats import ALPHATRACKER, moved, write_analysis, write_jabs

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import read_annotations, write_labels

sleap_io = pytest.importorskip("sleap_io")


@pytest.mark.parametrize(
    ("write", "format"), [(write_analysis, "sleap-analysis"), (write_jabs, "jabs")], ids=["analysis", "jabs"]
)
def test_predictions_of_others(tmp_path, write, format):
    path = write(tmp_path)
    assert detect_format(path) == format
    labels = read_annotations(path)
    (track,) = labels.tracks.values()
    assert not labels.labelled_frames.size and track.frames.tolist() == [0, 1, 2]
    for frame in range(3):
        np.testing.assert_array_equal(track.keypoints[frame], moved(frame, len(labels.skeleton)))
    assert (track.keypoint_scores == 0.5).all()
    assert list(labels.track_names.values()) == ["1"]


def test_alphatracker(tmp_path):
    (tmp_path / "labels.json").write_text(ALPHATRACKER)
    assert detect_format(tmp_path / "labels.json") == "alphatracker"
    labels = read_annotations(tmp_path / "labels.json")
    assert labels.labelled_frames.tolist() == [0, 1]
    np.testing.assert_array_equal(
        labels.tracks[0].keypoints, [[[3.5, 4.25], [10, 7.5]], [[5.5, 6.25], [12, 9.5]]]
    )


def test_what_sleap_io_warns_of_is_passed_on(tmp_path, monkeypatch):
    path = write_analysis(tmp_path)
    load = sleap_io.load_analysis_h5

    def load_and_warn(name: str) -> object:
        warnings.warn("two of five were skipped", UserWarning, stacklevel=2)
        return load(name)

    monkeypatch.setattr(sleap_io, "load_analysis_h5", load_and_warn)
    with pytest.warns(PosewarperWarning, match="two of five were skipped") as said:
        read_annotations(path)
    assert all(str(path) in str(warning.message) for warning in said)


def test_damage_and_nobody_are_told_by_the_files_own_name(tmp_path):
    (tmp_path / "empty.json").write_text('[{"filename": "a_1.png", "annotations": []}]')
    with pytest.raises(LabelsError, match="no keypoints") as raised:
        read_annotations(tmp_path / "empty.json")
    assert "empty.json" in str(raised.value) and "fix:" in str(raised.value)
    (tmp_path / "bad.json").write_text(
        '[{"filename": "a_1.png", "annotations": [{"class": "Face"}, {"class": "point"}]}]'
    )
    with pytest.raises(LabelsError, match="labels of AlphaTracker"):
        read_annotations(tmp_path / "bad.json")


def test_they_are_only_read(tmp_path):
    with pytest.raises(LabelsError, match="can only be read"):
        write_labels(tmp_path / "x.h5", mixed_labels(), format="jabs")
