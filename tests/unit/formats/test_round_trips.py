"""Through every format: what comes back is what went in, and what does not is named when it is written."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from label_sets import COMPARED, assert_same_points, file_name, label_sets, named_losses, shown

from posewarper.errors import PosewarperWarning
from posewarper.formats.catalogue import FORMATS, detect_format
from posewarper.formats.clips import PIECES
from posewarper.formats.labels import read_annotations, write_labels
from posewarper.structures import Labels

# Those that hold images need a video: test_yolo.py does the same for them.
WRITTEN = [name for name, form in FORMATS.items() if form.write is not None and not form.holds_images]
# Reading tells nothing of the names of keypoints: the reader says them (--skeleton).
NAMELESS = "the keypoints' names"
# What they would write of a labelled frame is taken for labels: predictions among them are left out.
UNMIXED = ("sleap", "nwb")
# Compared with what was written, not only with the instances that show something.
STATES = (
    "which keypoints are absent",
    "which keypoints of labelled frames are predictions",
    "which tracks nobody has looked at",
)
# Not shrunk: some formats take long to write, and a failure may take minutes to get smaller.
SETTINGS: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],
}


def test_every_piece_is_compared_and_every_loss_is_a_piece():
    assert COMPARED.keys() == PIECES.keys()
    for name, form in FORMATS.items():
        assert form.cannot_hold | form.partly <= PIECES.keys(), name
        assert not form.cannot_hold & form.partly, name


def write_and_read(path: Path, form: str, labels: Labels) -> tuple[Labels, set[str]]:
    """What comes back, and the pieces that were said to be lost."""
    skeleton = labels.skeleton if NAMELESS in FORMATS[form].cannot_hold else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PosewarperWarning)
        write_labels(path, labels, format=form)
        lost = named_losses([str(warning.message) for warning in caught])
        found = detect_format(path)
        assert found == form or form == "deeplabcut-predictions"
        return read_annotations(path, skeleton=skeleton), lost


@pytest.mark.parametrize("form", WRITTEN)
@settings(max_examples=25, **SETTINGS)
@given(labels=label_sets())
def test_what_is_written_comes_back_unless_its_loss_is_named(tmp_path, form, labels):
    for package in ("h5py", "sleap_io") if FORMATS[form].extra else ():
        pytest.importorskip(package)
    shutil.rmtree(tmp_path / "one", ignore_errors=True)
    again, lost = write_and_read(tmp_path / "one" / file_name(form), form, labels)
    before, after = shown(labels, mixed=form not in UNMIXED), shown(again)
    assert_same_points(before, after)
    stated = FORMATS[form].cannot_hold | FORMATS[form].partly
    assert {piece for piece in lost if "score" not in piece or "scores" not in lost} <= stated
    for piece, is_held in PIECES.items():
        if is_held(labels) and piece in FORMATS[form].cannot_hold:
            assert piece in lost
        elif is_held(labels) and piece not in lost:
            COMPARED[piece](*((labels, again) if piece in STATES else (before, after)))


@pytest.mark.parametrize("form", WRITTEN)
@settings(max_examples=8, **SETTINGS)
@given(labels=label_sets())
def test_what_was_read_from_a_format_goes_back_to_it_without_a_further_loss(tmp_path, form, labels):
    for package in ("h5py", "sleap_io") if FORMATS[form].extra else ():
        pytest.importorskip(package)
    shutil.rmtree(tmp_path / "two", ignore_errors=True)
    once, _ = write_and_read(tmp_path / "two" / "1" / file_name(form), form, labels)
    twice, lost = write_and_read(tmp_path / "two" / "2" / file_name(form), form, once)
    assert_same_points(shown(once), shown(twice))
    for piece, compare in COMPARED.items():
        if piece not in lost:
            compare(*((once, twice) if piece in STATES else (shown(once), shown(twice))))
