"""Labels with everything that labels can hold, made by hypothesis, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from posewarper.formats.catalogue import FORMATS
from posewarper.formats.clips import PIECES
from posewarper.formats.frame_names import base_name, stem_of
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

_NAMES = ("nose", "left_ear", "right_ear", "tail, tip", "pied \u00e9", 'a "b"', "9", "RPaw")
_FILES = {
    "coco": "labels.json",
    "deeplabcut-predictions": "clipDLC_net.csv",
    "openpose": "folder",
    "csv": "t.csv",
}


def file_name(form: str) -> str:
    """The name of a file or folder that is written in a format."""
    return _FILES[form] if form in _FILES else f"labels{FORMATS[form].suffixes[0]}"


def _floats(shape: tuple[int, ...], low: float, high: float) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, shape, elements=st.floats(low, high))


@st.composite
def _skeletons(draw: st.DrawFn) -> Skeleton:
    names = draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=4, unique=True))
    k = len(names)
    pair = st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)).filter(lambda ab: ab[0] < ab[1])
    edges = draw(st.lists(pair, max_size=3, unique=True)) if k > 1 else []
    pairs = draw(st.sampled_from([None, (), ((0, k - 1),)])) if k > 1 else None
    called = draw(st.sampled_from(["person", "animal", "fly"]))
    return Skeleton(tuple(names), tuple(edges), pairs, called)  # type: ignore[arg-type]


@st.composite
def _tracks(draw: st.DrawFn, k: int) -> Track:
    frames = sorted(draw(st.sets(st.integers(0, 20), min_size=1, max_size=4)))
    t = len(frames)
    visibility = draw(arrays(np.uint8, (t, k), elements=st.integers(0, 2)))
    visibility[np.arange(t), draw(st.integers(0, k - 1))] = 2  # something is there in each frame
    there = visibility > 0

    def partly(values: np.ndarray, known: np.ndarray) -> np.ndarray:
        return np.where(known, values, np.nan)

    def boxes() -> np.ndarray:
        known = draw(arrays(np.bool_, (t, 1)))
        return partly(np.abs(draw(_floats((t, 4), 0, 1e4))), known)

    some = arrays(np.bool_, (t, k), elements=st.booleans())
    # Labels to begin with; what is not labelled is predicted, or nobody has looked at it.
    labelled = draw(st.one_of(st.just(there), some))
    labelled[0, np.argmax(there[0])] = True
    if t > 1 and draw(st.booleans()):
        visibility[-1] = 0
        there = visibility > 0
    return Track(
        np.array(frames),
        draw(_floats((t, k, 2), -1e3, 1e4)),
        visibility=visibility,
        labelled=labelled,
        boxes=boxes(),
        head_boxes=boxes(),
        keypoint_scores=partly(draw(_floats((t, k), -0.25, 1)), there & draw(some)),
        expected_error=partly(draw(_floats((t, k), 0, 50)), there & draw(some)),
    )


@st.composite
def label_sets(draw: st.DrawFn) -> Labels:
    """Labels with any of the pieces that there are."""
    skeleton = draw(_skeletons())
    ids = draw(st.lists(st.sampled_from([0, 1, 2, 5, 17, 10**6]), min_size=1, max_size=3, unique=True))
    tracks = {i: draw(_tracks(len(skeleton))) for i in ids}
    held = sorted({f for track in tracks.values() for f in track.frames.tolist()})
    labelled = draw(st.one_of(st.just(set(held)), st.sets(st.sampled_from(held), min_size=1)))
    labelled |= draw(st.sets(st.integers(0, 20), max_size=2)) - set(held)
    listed = sorted(labelled | set(held))
    polygon = _floats((3, 2), 0, 100)
    named = draw(st.booleans())
    return Labels(
        skeleton,
        tracks,
        np.array(sorted(labelled)),
        draw(st.sampled_from([None, (120, 160)])),
        draw(st.sampled_from([None, 25])),
        draw(st.sampled_from([None, "clip.mp4"])),
        {f: f"cam/img{f:05d}.png" for f in listed} if named else {},
        {f: (draw(polygon),) for f in draw(st.sets(st.sampled_from(sorted(labelled)), max_size=2))},
        draw(st.sampled_from([{}, {i: f"mouse {n}" for n, i in enumerate(ids)}])),
    )


def shown(labels: Labels, *, mixed: bool = True) -> Labels:
    """The instances that show something: without predicted keypoints of labelled frames unless ``mixed``."""
    kept = labels if mixed else labels.without_mixed_frames()
    tracks = {i: track.at(track.frames[track.visibility.any(1)]) for i, track in kept.tracks.items()}
    return replace(kept, tracks=tracks)


# --- comparison -------------------------------------------------------------------------------------------


def _same(one: object, other: object, what: str) -> None:
    assert one == other, f"{what}: {one} was written, {other} was read"


def _states(name: str) -> Callable[[Labels, Labels], None]:
    """Compare in which keypoints of instances that show something a state is, on labelled frames."""

    def compare(before: Labels, after: Labels) -> None:
        one, other = (shown(labels).at(before.labelled_frames) for labels in (before, after))
        _in_tracks(lambda t: getattr(t, name), lambda t: np.ones(t.visibility.shape, bool))(one, other)

    return compare


def _passed_over(before: Labels, after: Labels) -> None:
    def rows(labels: Labels) -> list[list[int]]:
        own = labels.at(labels.labelled_frames).tracks.values()
        return [found for t in own if (found := t.frames[t.not_looked_at.all(1)].tolist())]

    _same(rows(before), rows(after), "frames on which nobody has looked at a track")


def _in_tracks(
    value: Callable[[Track], np.ndarray], where: Callable[[Track], np.ndarray]
) -> Callable[[Labels, Labels], None]:
    """Compare a value of every track, bit by bit, at the places that the written labels give."""

    def compare(before: Labels, after: Labels) -> None:
        for one, other in zip(before.tracks.values(), after.tracks.values(), strict=True):
            chosen = where(one)
            np.testing.assert_array_equal(value(one)[chosen], value(other)[chosen])

    return compare


def _known(name: str) -> Callable[[Labels, Labels], None]:
    return _in_tracks(lambda t: getattr(t, name), lambda t: np.isfinite(getattr(t, name)))


def _scores_above_0(before: Labels, after: Labels) -> None:
    _in_tracks(lambda t: t.keypoint_scores, lambda t: t.keypoint_scores > 0)(before, after)


def _predictions(before: Labels, after: Labels) -> None:
    is_label = [np.intersect1d(x.labelled_frames, x.instance_frames).tolist() for x in (before, after)]
    _same(*is_label, "labelled frames with instances")


def _empty_frames(before: Labels, after: Labels) -> None:
    empty = set(np.setdiff1d(before.labelled_frames, before.instance_frames).tolist())
    assert empty <= set(after.labelled_frames.tolist()) - set(after.instance_frames.tolist())


def _unlabelled(before: Labels, after: Labels) -> None:
    extra = set(after.labelled_frames.tolist()) - set(before.labelled_frames.tolist())
    assert extra <= set(before.instance_frames.tolist())


def _regions(before: Labels, after: Labels) -> None:
    _same(before.ignore_regions.keys(), after.ignore_regions.keys(), "frames with ignore regions")
    for frame, polygons in before.ignore_regions.items():
        np.testing.assert_array_equal(polygons, after.ignore_regions[frame])


def _names_of_files(before: Labels, after: Labels) -> None:
    # Some tools keep images in folders of their own, and only those that show somebody.
    frames = [frame for frame in before.instance_frames.tolist() if frame in before.frame_names]
    one, other = (
        [base_name(names.get(f, "")) for f in frames] for names in (before.frame_names, after.frame_names)
    )
    _same(one, other, "names of files")


def _video(before: Labels, after: Labels) -> None:
    _same(stem_of(str(before.video)), stem_of(str(after.video)), "name of the video")


def _names_of_tracks(before: Labels, after: Labels) -> None:
    _same(*[[x.track_names.get(i) for i in x.tracks] for x in (before, after)], "names of tracks")


def _field(what: str) -> Callable[[Labels, Labels], None]:
    return lambda before, after: _same(getattr(before, what), getattr(after, what), what)


def _of_skeleton(what: str) -> Callable[[Labels, Labels], None]:
    def compare(before: Labels, after: Labels) -> None:
        one, other = (getattr(labels.skeleton, what) for labels in (before, after))
        _same(set(one) if what in ("edges", "flip_pairs") else one,
              set(other) if what in ("edges", "flip_pairs") else other, what)  # fmt: skip

    return compare


# Piece of posewarper.formats.clips.PIECES -> check that what was read is what was written, if any.
COMPARED: dict[str, Callable[[Labels, Labels], None]] = {
    "the keypoints' names": _of_skeleton("names"),
    "what an instance is called": _of_skeleton("name"),
    "which keypoints are absent": _states("absent"),
    "which keypoints of labelled frames are predictions": _states("predicted"),
    "which tracks nobody has looked at": _passed_over,
    "which keypoints are hidden": _in_tracks(lambda t: t.visibility, lambda t: t.visibility >= 0),
    "boxes": _known("boxes"),
    "head boxes": _known("head_boxes"),
    "scores": _scores_above_0,
    "scores of 0 and below": _in_tracks(lambda t: t.keypoint_scores, lambda t: t.keypoint_scores <= 0),
    "which keypoints have no score": _in_tracks(
        lambda t: np.isnan(t.keypoint_scores), lambda t: np.isnan(t.keypoint_scores)
    ),
    "expected errors": _known("expected_error"),
    "which poses are predictions": _predictions,
    "which frames nobody has labelled": _unlabelled,
    "labelled frames that show nobody": _empty_frames,
    "track ids": lambda before, after: _same(list(before.tracks), list(after.tracks), "track ids"),
    "track names": _names_of_tracks,
    "edges": _of_skeleton("edges"),
    "mirror pairs": _of_skeleton("flip_pairs"),
    "ignore regions": _regions,
    "the image size": _field("image_size"),
    "the number of frames": _field("n_frames"),
    "the video's name": _video,
    "the names of the frames' files": _names_of_files,
}


def assert_same_points(before: Labels, after: Labels) -> None:
    """What every format holds: which keypoints of which track are where in which frame, bit by bit."""
    assert len(before.tracks) == len(after.tracks)
    for one, other in zip(before.tracks.values(), after.tracks.values(), strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.visibility > 0, other.visibility > 0)
        np.testing.assert_array_equal(one.keypoints, other.keypoints)


def named_losses(said: Sequence[str]) -> set[str]:
    """The pieces that warnings name, also where they say that only a part of a piece is lost."""
    lost = set()
    for text in said:
        for part in text.partition("cannot hold: ")[2].split("; "):
            whole = [piece for piece in PIECES if part == piece]
            lost |= set(whole or [piece for piece in PIECES if part.startswith(piece)])
            lost |= {"mirror pairs"} if "mirror images" in part else set()
    return lost | ({piece for piece in PIECES if "score" in piece} if "scores" in lost else set())
