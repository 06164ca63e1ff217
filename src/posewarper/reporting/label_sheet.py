"""A picture of labels on their frames, on which a wrong skeleton, rotation or frame shift shows at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import cv2
import numpy as np

from posewarper.crops import Image, smooth_crop
from posewarper.errors import LabelsError
from posewarper.formats.labels import check_image_size
from posewarper.geometry import crop_transform
from posewarper.reporting import views
from posewarper.reporting.checking import subject_size
from posewarper.reporting.overlay import (
    LEFT,
    RIGHT,
    TRACK_COLOURS,
    Colour,
    check_picture_name,
    draw_pose,
    keypoint_sides,
    write_picture,
    write_text,
)
from posewarper.skeletons import Skeleton
from posewarper.structures import Floats, Labels, Poses, is_there
from posewarper.video.source import Video

_WIDTH, _GAP = 1600, 16
_NAMED_WIDTH, _NAMED_HEIGHT = 1000, 860  # most pixels of the frame with numbers
_BACKGROUND: Colour = (30, 32, 36)
_TEXT: Colour = (235, 235, 235)
_GREY: Colour = (150, 150, 150)
_PLATE: Colour = (255, 255, 255)
_COLUMNS = 4
_LINE, _LONGEST_NAME = 26, 32
_ZOOM = 0.5  # of the subject's size that is seen of a fast keypoint


def write_label_sheet(
    path: str | os.PathLike[str], video: Video, labels: Labels, *, most_frames: int = 8
) -> None:
    """Write one picture (.png or .jpg) to check labels by.

    On top it shows a large labelled frame with a number beside each keypoint, and the names that belong to
    the numbers; then at most ``most_frames`` labelled frames from all over the clip; at the bottom the labels
    of the frame with the largest motion, drawn on the frame before, on its own and on the one after, of which
    its own should fit best. The left side is blue, the right side orange.

    Raises:
        LabelsError: if there are no labels, or they belong to another image size.
        OutputError: if the place cannot be written, or its name is not that of a picture.
    """
    check_picture_name(path)
    poses = _as_poses(video, labels)
    rows = [_named_row(video, poses), *_spread_rows(video, poses, most_frames), *_motion_rows(video, poses)]
    gap = _canvas(_GAP, _WIDTH)
    write_picture(path, np.concatenate([gap, *(part for row in rows for part in (row, gap))]))


def _as_poses(video: Video, labels: Labels) -> Poses:
    """Return the labels as poses that are drawn without the transparency of low scores."""
    tracks = {
        i: replace(track, keypoint_scores=(track.visibility > 0).astype(float))
        for i, track in labels.tracks.items()
        if (track.visibility > 0).any()
    }
    if not tracks:
        raise LabelsError("there are no labels to show", fix="label at least one frame with one keypoint")
    check_image_size(labels.image_size, video.image_size, path=video.path)
    return Poses(labels.skeleton, tracks, video.image_size, video.n_frames, labels.labelled_frames)


def _spread_rows(video: Video, poses: Poses, most: int) -> list[Image]:
    """Return a caption and labelled frames from all over the clip, of tracks far apart one track a frame."""
    tracks, size = poses.tracks, poses.image_size
    rows = [track.frames for track in tracks.values()]
    frames = np.unique(np.concatenate(rows))
    tight = {i: views.tight_boxes(track.keypoints, size) for i, track in tracks.items()}
    joined = views.join_boxes(list(tight.values()), rows, poses.n_frames)
    together = views.pad_boxes(joined, views.usual_aspect(joined), size)
    aspect = views.usual_aspect(np.concatenate(list(tight.values())))
    single = {i: views.pad_boxes(boxes, aspect, size) for i, boxes in tight.items()}
    pairs: list[tuple[int, int | None]] = [(int(f), None) for f in frames]
    if views.are_apart(together[frames], list(single.values())):
        pairs = [(f, i) for f, _ in pairs for i, track in tracks.items() if f in track.frames]
    pictures, names = [], []
    for n in np.linspace(0, len(pairs) - 1, min(most, len(pairs))):
        frame, track_id = pairs[round(n)]
        box, name = together[frame], f"frame {frame}"
        if track_id is not None:
            box = single[track_id][np.searchsorted(tracks[track_id].frames, frame)]
            name += f", track {track_id}"
        box = box if np.isfinite(box).all() else views.whole_image(size)
        pictures.append(views.draw_view(video[frame], box, _cell(box, _COLUMNS), poses, frame))
        names.append(name)
    text = f"{len(frames)} labelled {'frame' if len(frames) == 1 else 'frames, from all over the clip'}:"
    return [_caption(text), *_grid(pictures, names, _COLUMNS)]


# --- a frame with names -----------------------------------------------------------------------------------


def _named_row(video: Video, poses: Poses) -> Image:
    """Return an instance with numbers on its keypoints, the names for them, and the whole of its frame."""
    track_id, row = _fullest_label(poses)
    track, size = poses.tracks[track_id], poses.image_size
    frame = int(track.frames[row])
    tight = views.tight_boxes(track.keypoints[[row]], size)
    aspect = np.clip((tight[0, 2] + 1) / (tight[0, 3] + 1), 0.5, _NAMED_WIDTH / _NAMED_HEIGHT)
    box = views.pad_boxes(tight, float(np.nan_to_num(aspect, nan=1.0)), size)[0]
    box = box if np.isfinite(box).all() else views.whole_image(size)
    factor = min(_NAMED_WIDTH / box[2], _NAMED_HEIGHT / box[3])
    transform = crop_transform(box, views.view_size(box, round(factor * max(box[2:]))))
    points = transform.to_crop(track.keypoints[row])
    image = video[frame]
    view = draw_pose(smooth_crop(image, transform), points, poses.skeleton, visibility=track.visibility[row])
    _number(view, points)
    whose = f", track {track_id}" if len(poses.tracks) > 1 else ""
    write_text(view, f"frame {frame}{whose}", (0, 0), 20, _PLATE)
    parts = [view, _names(poses, view.shape[0])]
    left = _WIDTH - sum(part.shape[1] + _GAP for part in parts) - 2 * _GAP
    if left >= 300 and not np.array_equal(box, views.whole_image(size)):
        scale = min(left / size[1], len(view) / size[0])
        whole = views.draw_view(image, views.whole_image(size), round(scale * max(size)), poses, frame)
        write_text(whole, f"all of frame {frame}", (0, 0), 16, _PLATE)
        parts.append(whole)
    row_image, x = _canvas(max(map(len, parts)), _WIDTH), _GAP
    for part in parts:
        part = part[:, : _WIDTH - x]
        row_image[: len(part), x : x + part.shape[1]] = part
        x += part.shape[1] + _GAP
    return row_image


def _fullest_label(poses: Poses) -> tuple[int, int]:
    """Return the track and the row in it with the most labelled keypoints, of those the largest."""
    best, found = (-1, -1.0), (0, 0)
    for track_id, track in poses.tracks.items():
        there = is_there(track.keypoints).sum(-1).tolist()
        size = np.nan_to_num(views.tight_boxes(track.keypoints, poses.image_size)[:, 2:].max(-1)).tolist()
        row = max(range(len(there)), key=lambda n: (there[n], size[n]))
        if (there[row], size[row]) > best:
            best, found = (there[row], size[row]), (track_id, row)
    return found


def _number(image: Image, points: Floats) -> None:
    """Write the index of each keypoint beside it, where it hides neither a keypoint nor another number."""
    height, width = image.shape[:2]
    there = np.flatnonzero(is_there(points))
    # What is taken already, as left, top, right, bottom: the keypoints themselves.
    taken = [(*(points[k] - 5), *(points[k] + 5)) for k in there]
    for k in there:
        x, y = points[k]
        w, h = 11 * len(str(k)) + 8, 20
        for radius, angle in product((18, 30, 44, 60), np.arange(0, 2 * np.pi, np.pi / 6)):
            centre = x + radius * np.cos(angle), y - radius * np.sin(angle)
            spot = centre[0] - w / 2, centre[1] - h / 2, centre[0] + w / 2, centre[1] + h / 2
            inside = spot[0] >= 0 and spot[1] >= 0 and spot[2] < width and spot[3] < height
            if inside and not any(
                spot[0] < right and left < spot[2] and spot[1] < bottom and top < spot[3]
                for left, top, right, bottom in taken
            ):
                break
        else:
            continue
        taken.append(spot)
        cv2.line(image, (int(x), int(y)), (int(centre[0]), int(centre[1])), _PLATE, 1, cv2.LINE_AA)
        write_text(image, str(k), (int(spot[0]), int(spot[1])), 13, _PLATE)


def _names(poses: Poses, height: int) -> Image:
    """Return the list of keypoints by number in the colour of their side, and what the colours mean."""
    skeleton, seen = poses.skeleton, np.zeros(len(poses.skeleton), int)
    for track in poses.tracks.values():
        seen += (track.visibility > 0).sum(0)
    lines = [
        (f"{k} {name}" + ("" if seen[k] else " (never labelled)"), colour if seen[k] else _GREY)
        for k, (name, colour) in enumerate(zip(skeleton.names, side_colours(skeleton), strict=True))
    ]
    legend = [("hollow dot: labelled as hidden", _GREY)]
    if skeleton.flip_pairs:
        sides = [("blue: left", LEFT), ("orange: right", RIGHT), ("green: neither", TRACK_COLOURS[0])]
        legend = [*sides, *legend]
    elif not skeleton.edges:
        legend.append(("no edges: the labels name no skeleton", _GREY))
    lines += [("", _GREY), *legend]
    per_column = max(height // _LINE, -(-len(lines) // 3))
    columns = [lines[n : n + per_column] for n in range(0, len(lines), per_column)]
    widths = [12 * min(max(len(text) for text, _ in column), _LONGEST_NAME) + _GAP for column in columns]
    image = _canvas(max(height, per_column * _LINE + _LINE // 2), sum(widths))
    for n, column in enumerate(columns):
        for line, (text, colour) in enumerate(column, start=1):
            short = text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 2]}.."
            _put(image, short, (sum(widths[:n]), line * _LINE), colour)
    return image


def side_colours(skeleton: Skeleton) -> list[Colour]:
    """Return the colour that each keypoint is drawn in."""
    colours = {"left": LEFT, "right": RIGHT, "middle": TRACK_COLOURS[0]}
    return [colours[side] for side in keypoint_sides(skeleton)]


# --- frame shifts -----------------------------------------------------------------------------------------


def _motion_rows(video: Video, poses: Poses) -> list[Image]:
    """Return a caption and the labels of one frame, close, on it and on its neighbours."""
    track_id, frame, keypoint = fastest_label(poses)
    near = [f for f in (frame - 1, frame, frame + 1) if 0 <= f < video.n_frames]
    if len(near) < 2:
        return []
    track = poses.tracks[track_id]
    points = track.keypoints[np.searchsorted(track.frames, frame)]
    around, share = np.nanmean(points, axis=0), 1.2
    text = f"Labels of frame {frame}"
    if keypoint is not None:
        around, share = points[keypoint], _ZOOM
        text += f" around {poses.skeleton.names[keypoint]}, which moves fast there"
    side = max(share * subject_size(track.keypoints, track.keypoints, poses.image_size), 24)
    box = np.array([*(around - side / 2), side, side])
    pictures = [views.draw_view(video[f], box, _cell(box, 3), poses, frame) for f in near]
    names = [f"frame {f}" + (" (its own)" if f == frame else "") for f in near]
    return [_caption(f"{text}: its own frame should fit best."), *_grid(pictures, names, 3)]


def fastest_label(poses: Poses) -> tuple[int, int, int | None]:
    """Return the track and labelled frame with the largest motion, and the keypoint that moves most there.

    Motion is measured from one labelled frame to the next; None where it is not known. Frames with both
    neighbours in the clip and keypoints labelled as visible come first.
    """
    best, found = (False, -1.0), (0, 0, None)
    for track_id, track in poses.tracks.items():
        there = is_there(track.keypoints)
        gaps = np.diff(track.frames)[:, None]
        step = np.nan_to_num(np.linalg.norm(np.diff(track.keypoints, axis=0), axis=-1) / gaps)
        speed = np.zeros(there.shape)
        speed[:-1] = step
        speed[1:] = np.maximum(speed[1:], step)
        mean = (speed * there).sum(-1) / np.maximum(there.sum(-1), 1)
        for row, frame in enumerate(track.frames.tolist()):
            rank = (0 < frame < poses.n_frames - 1, float(mean[row]))
            if there[row].any() and rank > best:
                clear = np.where(track.visibility[row] == 2, 2.0, 1.0) * there[row] * (speed[row] > 0)
                keypoint = int(np.lexsort((speed[row], clear))[-1])
                best, found = rank, (track_id, frame, keypoint if clear.any() else None)
    return found


# --- putting together -------------------------------------------------------------------------------------


def _canvas(height: int, width: int) -> Image:
    return np.full((height, width, 3), _BACKGROUND, np.uint8)


def _caption(text: str) -> Image:
    image = _canvas(_LINE + 6, _WIDTH)
    _put(image, text, (_GAP, _LINE), _TEXT)
    return image


def _put(image: Image, text: str, origin: tuple[int, int], colour: Colour) -> None:
    # The font has no other letters than ASCII.
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(image, plain, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, 1, cv2.LINE_AA)


def _cell(box: Floats, columns: int) -> int:
    """Return the longer side of a picture of the box that fits into a column."""
    width = (_WIDTH - _GAP) // columns - _GAP
    return min(round(width / min(1.0, box[2] / box[3])), 620)


def _grid(pictures: Sequence[Image], names: Sequence[str], columns: int) -> list[Image]:
    """Return rows of pictures with their names in the corner."""
    rows = []
    pitch = (_WIDTH - _GAP) // columns
    for start in range(0, len(pictures), columns):
        group = list(pictures[start : start + columns])
        row = _canvas(max(map(len, group)), _WIDTH)
        for n, (picture, name) in enumerate(zip(group, names[start : start + columns], strict=True)):
            write_text(picture, name, (0, 0), 16, _PLATE)
            left = _GAP + n * pitch
            row[: len(picture), left : left + picture.shape[1]] = picture
        rows.append(row)
    return rows
