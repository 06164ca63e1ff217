"""Which crop each instance is looked at in: one of its own on every frame, or one that is held for a while.

The paper cuts the neighbours of a frame with the present frame's box, so that each frame is seen by the
network as often as it is somebody's neighbour. A crop that is held while its instance hardly moves is cut
once from each frame, and its heatmaps serve all frames around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from posewarper.errors import ConfigError
from posewarper.geometry import pad_box
from posewarper.structures import Floats

BOXES = ("exact", "held")
_FAR = 1.0  # a box that is farther off than its own size belongs to somebody else


@dataclass(frozen=True)
class Crop:
    """One cut-out, for one frame or for many.

    Args:
        number: tells it from others of the run.
        box: (4,) tight box xywh in image pixels, not yet padded.
    """

    number: int
    box: tuple[float, float, float, float]


class CropKeeper:
    """Gives every box of a frame its crop, frame after frame.

    Args:
        boxes: ``exact`` gives each box a crop of its own; ``held`` keeps a crop until its box has moved by
            more than ``share`` of its size, or has grown or shrunk by more.
        aspect_ratio: width divided by height of crops.
        share: of the padded box. With a padding of 1.25 the tight box reaches the crop's edge at 0.1.

    Raises:
        ConfigError: if ``boxes`` is unknown or the share is not between 0 and 0.5.
    """

    def __init__(self, boxes: str, aspect_ratio: float, share: float = 0.08) -> None:
        if boxes not in BOXES:
            raise ConfigError(
                "unknown way to cut crops",
                expected=", ".join(BOXES),
                got=boxes,
                mend="use one of the names expected",
            )
        if not 0 <= share <= 0.5:
            raise ConfigError(
                "a crop cannot be held so long",
                expected="a share of its size from 0 to 0.5",
                got=share,
                mend="correct it",
            )
        self._held, self._aspect, self._share = boxes == "held", aspect_ratio, share
        self._crops: list[Crop] = []
        self._count = 0

    def place(self, boxes: Floats) -> list[Crop]:
        """Return the crop of each of the boxes (n, 4) xywh of the next frame."""
        kept = self._match(boxes) if self._held and self._crops and len(boxes) else {}
        self._crops = [kept.get(n) or self._new(box) for n, box in enumerate(boxes)]
        return self._crops

    @property
    def held(self) -> frozenset[int]:
        """Numbers of the crops that the next frame may be looked at in as well."""
        return frozenset(crop.number for crop in self._crops) if self._held else frozenset()

    def forget(self) -> None:
        """Hold nothing over: another scene begins."""
        self._crops = []

    def _new(self, box: Floats) -> Crop:
        self._count += 1
        x, y, w, h = (float(value) for value in box)
        return Crop(self._count, (x, y, w, h))

    def _match(self, boxes: Floats) -> dict[int, Crop]:
        held = pad_box([crop.box for crop in self._crops], aspect_ratio=self._aspect)
        new = pad_box(boxes, aspect_ratio=self._aspect)
        size = held[None, :, 2:]
        moved = new[:, None, :2] + new[:, None, 2:] / 2 - held[None, :, :2] - size / 2
        distance = np.abs(moved / size).max(-1)
        grown = np.abs(np.log(new[:, None, 2] / held[None, :, 2]))
        rows, columns = linear_sum_assignment(np.minimum(distance + grown, _FAR))
        # What is still inside of the crop may be left out by growth on one side and by a move on the other.
        reach = distance + (np.exp(grown) - 1) / 2
        return {
            int(row): self._crops[column]
            for row, column in zip(rows, columns, strict=True)
            if reach[row, column] <= self._share
        }

    def state_dict(self) -> dict[str, object]:
        """Return plain values that :meth:`load_state_dict` takes back."""
        return {"count": self._count, "crops": [[crop.number, list(crop.box)] for crop in self._crops]}

    def load_state_dict(self, state: dict) -> None:
        """Take up a state."""
        self._count = state["count"]
        self._crops = [Crop(number, tuple(box)) for number, box in state["crops"]]
