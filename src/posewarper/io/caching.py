"""A store for the frames used last."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class FrameCache(Generic[T]):
    """Keeps the frames used last, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: OrderedDict[int, tuple[T, int]] = OrderedDict()
        self.n_bytes = 0

    def get(self, frame: int) -> T | None:
        """Return what is kept for a frame, or None."""
        if frame not in self._items:
            return None
        self._items.move_to_end(frame)
        return self._items[frame][0]

    def put(self, frame: int, item: T, n_bytes: int) -> None:
        """Keep an item; those not used for longest go when there are too many bytes."""
        if frame in self._items:
            self.n_bytes -= self._items.pop(frame)[1]
        self._items[frame] = (item, n_bytes)
        self.n_bytes += n_bytes
        while self.n_bytes > self._max_bytes:
            self.n_bytes -= self._items.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self.n_bytes = 0
