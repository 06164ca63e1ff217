"""Clips as phones and cameras make them: the skeleton comes out on the figure."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from moving_clip import HEIGHT, N_FRAMES, WIDTH, command, picture, true_keypoints, write_some_labels

from clip_files import encode_clip, turned
from posewarper.formats.labels import read_poses
from posewarper.video.source import open_video

_STEADY = {"options": {"x264-params": "scenecut=0:bframes=3:keyint=12", "crf": "12"}}


def _rotated(path: Path) -> Path:
    """A phone held upright: stored lying on its side, with a display matrix that turns it clockwise."""
    stored = [np.ascontiguousarray(np.rot90(picture(n))) for n in range(N_FRAMES)]
    return turned(encode_clip(path, stored, **_STEADY), (0, 1, -1, 0))


def _variable_rate(path: Path) -> Path:
    """Steps of 10 to 120 milliseconds, as a phone drops frames in bad light."""
    steps = np.random.default_rng(0).integers(10, 120, N_FRAMES)
    times = np.cumsum(steps).tolist()
    pictures = [picture(n) for n in range(N_FRAMES)]
    return encode_clip(path, pictures, pts=times, time_base=Fraction(1, 1000), **_STEADY)


def _ten_bit(path: Path) -> Path:
    return encode_clip(path, [picture(n) for n in range(N_FRAMES)], pix_fmt="yuv420p10le", **_STEADY)


def _grey(path: Path) -> Path:
    return encode_clip(path, [picture(n) for n in range(N_FRAMES)], pix_fmt="gray", **_STEADY)


@pytest.mark.parametrize("make", [_rotated, _variable_rate, _ten_bit, _grey])
def test_the_skeleton_is_on_the_figure(capsys, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    clip = make(tmp_path / ("clip.mkv" if make is _variable_rate else "clip.mp4"))
    labels, out = write_some_labels(tmp_path), tmp_path / "out"
    options = ("--labels", labels, "--out", out, "--effort", "fast", "--device", "cpu")
    code, _, stderr = command(capsys, "propagate", clip, *options)
    assert code == 0, stderr
    poses = read_poses(out / "poses.json")
    assert (poses.image_size, poses.n_frames) == ((HEIGHT, WIDTH), N_FRAMES)
    truth = true_keypoints(range(N_FRAMES))
    assert np.linalg.norm(poses.dense()[:, 0] - truth, axis=-1).max() < 1.5

    with open_video(clip) as plain, open_video(out / "overlay.mp4") as overlay:
        assert (overlay.n_frames, overlay.image_size) == (N_FRAMES, (HEIGHT, WIDTH))
        for n in (0, 7, 19):
            # Drawn upon are the keypoints, each with the colour of its side or its track, and little else.
            changed = np.abs(overlay[n].astype(int) - plain[n]).max(-1) > 60
            for x, y in truth[n]:
                around = changed[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2]
                assert around.any(), (n, x, y)
            away = changed.copy()
            low, high = truth[n].min(0) - 6, truth[n].max(0) + 6
            away[int(low[1]) : int(high[1]), int(low[0]) : int(high[0])] = False
            away[:20], away[:, -30:] = False, False  # the frame's number, the track's id
            assert away.mean() < 0.02


def test_a_rotated_clip_is_told_with_its_upright_size(capsys, tmp_path: Path) -> None:
    code, out, _ = command(capsys, "info", _rotated(tmp_path / "clip.mp4"))
    assert code == 0
    facts = dict(line.split() for line in out.splitlines() if len(line.split()) == 2)
    assert (facts["width"], facts["height"], facts["rotation"]) == (str(WIDTH), str(HEIGHT), "-90")
