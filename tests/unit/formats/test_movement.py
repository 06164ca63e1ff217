"""Poses in NetCDF files: as movement writes them, as we do, and what cannot be used."""

from __future__ import annotations

import numpy as np
import pytest

from posewarper.errors import LabelsError
from posewarper.formats.catalogue import detect_format
from posewarper.formats.labels import read_annotations, write_labels
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

xarray = pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")
NAN = np.nan


def movement_data(position: np.ndarray, *, fps: float | None = None, singular: bool = False):
    """A data set (time, space, keypoints, individuals) as movement builds it."""
    t, _, k, n = position.shape
    keypoints, individuals = ("keypoint", "individual") if singular else ("keypoints", "individuals")
    return xarray.Dataset(
        {
            "position": (("time", "space", keypoints, individuals), position),
            "confidence": (("time", keypoints, individuals), np.full((t, k, n), 0.5, np.float32)),
        },
        {
            "time": np.arange(t) if fps is None else np.arange(t) / fps,
            "space": ["x", "y", "z"][: position.shape[1]],
            keypoints: [f"k{i}" for i in range(k)],
            individuals: [f"mouse{i}" for i in range(n)],
        },
        {"ds_type": "poses", "time_unit": "frames" if fps is None else "seconds"}
        | ({"fps": fps} if fps else {}),
    )


@pytest.mark.parametrize("fps", [None, 29.97])
@pytest.mark.parametrize("singular", [False, True])
def test_files_of_movement(tmp_path, fps, singular):
    position = np.arange(4 * 2 * 3 * 2, dtype=float).reshape(4, 2, 3, 2)
    position[2, :, :, 1] = NAN  # the second animal is not there
    position[1, :, 2, 0] = NAN
    movement_data(position, fps=fps, singular=singular).to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
    assert detect_format(tmp_path / "p.nc") == "movement"
    labels = read_annotations(tmp_path / "p.nc")
    assert labels.skeleton.names == ("k0", "k1", "k2")
    assert labels.track_names == {0: "mouse0", 1: "mouse1"}
    assert not labels.labelled_frames.size
    assert [track.frames.tolist() for track in labels.tracks.values()] == [[0, 1, 2, 3], [0, 1, 3]]
    for i, track in labels.tracks.items():
        np.testing.assert_array_equal(track.keypoints, position[track.frames, :, :, i].transpose(0, 2, 1))
    assert labels.tracks[0].visibility.tolist()[1] == [2, 2, 0]
    assert labels.tracks[0].keypoint_scores[0].tolist() == [0.5] * 3


def test_what_is_written_has_movements_form_and_the_expected_errors(tmp_path):
    track = Track([1, 3], [[[1.5, 2], [NAN, NAN]], [[3, 4], [5, 6]]], expected_error=[[0.5, NAN], [1, 2]])
    write_labels(tmp_path / "p.nc", Labels(Skeleton(("nose", "tail")), {0: track}, [3], n_frames=5))
    with xarray.open_dataset(tmp_path / "p.nc", engine="h5netcdf") as data:
        assert dict(data.sizes) == {"time": 5, "space": 2, "keypoints": 2, "individuals": 1}
        assert data.position.dims == ("time", "space", "keypoints", "individuals")
        assert data.attrs["ds_type"] == "poses"
        assert data.attrs["time_unit"] == "frames"
        assert data.position.sel(time=3, keypoints="tail", space="y").item() == 6
        assert data.expected_error.sel(time=3).values.tolist() == [[1], [2]]
        assert data.is_label.values.tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.isel(space=[0, 1, 1]).assign_coords(space=["x", "y", "z"]), "not x and y"),
        (lambda data: data.drop_vars("position"), "in no known format"),
        (lambda data: data.assign_coords(time=[0.0, 0.1, 0.2]), "do not tell the frames"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(tmp_path, change, message):
    change(movement_data(np.ones((3, 2, 1, 1)))).to_netcdf(tmp_path / "p.nc", engine="h5netcdf")
    with pytest.raises(LabelsError, match=message) as raised:
        read_annotations(tmp_path / "p.nc")
    assert "p.nc" in str(raised.value)
    assert "fix:" in str(raised.value)
