"""Which frames of a video are looked at beside a sample's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def support_numbers(
    number: int,
    offsets: Iterable[int],
    *,
    first: int,
    n_frames: int,
    exists: Callable[[int], bool] = lambda number: True,
) -> list[int]:
    """Return the numbers of the frames that the original reads beside frame ``number``.

    Beyond the ends of the video its first or last frame is read again, and in place of a frame whose file is
    missing the frame ``number`` itself.

    Args:
        number: the frame of the sample.
        offsets: frames asked for, counted from ``number``; 0 is the frame itself.
        first: number of the video's first frame (1 in PoseTrack17, 0 in PoseTrack18).
        n_frames: frames of the whole video.
        exists: whether the file of a frame number is there.

    Example:
        >>> support_numbers(2, (0, -1, -2, 1, 2), first=1, n_frames=3)
        [2, 1, 1, 3, 3]
        >>> support_numbers(2, (-1, 1), first=1, n_frames=3, exists=lambda number: number != 3)
        [1, 2]
    """
    numbers = [min(max(number + offset, first), first + n_frames - 1) for offset in offsets]
    return [near if near != number and exists(near) else number for near in numbers]
