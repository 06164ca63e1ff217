"""Whole videos: records, tracks, and runs that are stopped and go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from posewarper.errors import Interrupted, ModelError, OutputError, PosewarperWarning
from posewarper.model.network import ModelSpec
from posewarper.prediction.boxes import BoxSource, boxes_of_labels
from posewarper.prediction.search import find_instance, frame_pieces
from posewarper.prediction.video import ClipPredictionConfig, predict_clip
from posewarper.runs import RecordLog
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track

SIZE = (60, 90)
DOTS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)])
SKELETON = Skeleton(("red", "green", "blue"))
N_FRAMES = 140


class DotFinder(torch.nn.Module):
    """A pose network that knows the colours of the dots that are its keypoints."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.spec = ModelSpec(
            "none", SKELETON, (64, 48), 1.0, mean=(0, 0, 0), std=(1, 1, 1), trained={"pose": 1, "warp": 1},
            targets="exact",
        )  # fmt: skip

    def heatmaps(self, crops):
        pure = torch.stack([2 * crops[:, c] - crops.sum(1) for c in range(3)], 1).clamp(0, 1)
        return torch.nn.functional.max_pool2d(pure, 4)

    def warp(self, values, *, source, target):
        return values


def true_points(frame: int) -> np.ndarray:
    """Return (2, 3, 2): two figures that walk across each other."""
    shape = np.array([[0, -9], [4, 0], [-3, 9]])
    left, right = np.array([14 + 0.4 * frame, 20]), np.array([76 - 0.4 * frame, 40])
    return np.stack([left + shape, right + shape * (1, 0.9)])


def picture(frame: int) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.zeros((*SIZE, 3))
    for points in true_points(frame):
        for point, colour in zip(points, DOTS, strict=True):
            image += np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / 4)[..., None] * colour
    return image.clip(0, 255).astype(np.uint8)


@dataclass
class Shown:
    """Stands in for a video; ``picture`` draws a frame."""

    n_frames: int | None
    picture: Callable[[int], np.ndarray] = picture
    reads: list[int] = field(default_factory=list)
    stop_at: int | None = None
    image_size: tuple[int, int] = SIZE
    name: str = "dots.mp4"
    frame_names: tuple[str, ...] = ()

    def frames(self, indices: Iterable[int], /):
        for frame in indices:
            self.reads.append(frame)
            if frame == self.stop_at:
                raise KeyboardInterrupt
            yield frame, self.picture(frame)


def boxes(frame: int) -> np.ndarray:
    points = true_points(frame)
    low, high = points.min(1) - 2, points.max(1) + 2
    return np.concatenate([low, high - low], 1)


def given(n: int = N_FRAMES) -> BoxSource:
    return BoxSource({frame: boxes(frame) for frame in range(n)})


def labels(*frames: int) -> Labels:
    points = np.stack([true_points(frame) for frame in frames], 1)
    seen = np.full((len(frames), 3), 2)
    tracks = {i: Track(np.array(frames), points[i], visibility=seen) for i in (0, 1)}
    return Labels(SKELETON, tracks, n_frames=N_FRAMES)


PLAIN = ClipPredictionConfig(precision="float32", patience=10)


@pytest.mark.parametrize(
    ("source", "config"),
    [
        (given(), PLAIN),
        (given(), PLAIN.model_copy(update={"crops": "held"})),
        (BoxSource(boxes_of_labels(labels(0)), follows=True), PLAIN),
        (given(), PLAIN.model_copy(update={"causal": True})),
    ],
)
def test_two_figures_keep_their_ids(source, config) -> None:
    config = config.model_copy(update={"window": 0})  # this warp moves nothing
    found = predict_clip(Shown(N_FRAMES), DotFinder(), source, config=config)
    assert found.config["frames"] == N_FRAMES and list(found.poses.tracks) == [1, 2]
    for i, track in enumerate(found.poses.tracks.values()):
        assert len(track.frames) > 0.95 * N_FRAMES
        truth = np.stack([true_points(frame)[i] for frame in track.frames])
        assert np.median(np.linalg.norm(track.keypoints - truth, axis=-1)) < 1


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_been(tmp_path) -> None:
    config = PLAIN.model_copy(update={"crops": "held"})
    whole = predict_clip(Shown(N_FRAMES), DotFinder(), given(), config=config)
    for stop in (9, 61, 133):
        with pytest.raises(Interrupted, match="same command goes on"):
            predict_clip(Shown(N_FRAMES, stop_at=stop), DotFinder(), given(), config=config, log=tmp_path)
    with (tmp_path / "records.jsonl").open("a") as handle:
        handle.write('{"frame": 7, "tra')  # what a kill leaves
    reads: list[int] = []
    found = predict_clip(Shown(N_FRAMES, reads=reads), DotFinder(), given(), config=config, log=tmp_path)
    assert reads[0] > 80
    assert found.config["frames"] == N_FRAMES and found.config["reused"] == pytest.approx(
        whole.config["reused"], abs=0.05
    )
    for track, other in zip(whole.poses.tracks.values(), found.poses.tracks.values(), strict=True):
        np.testing.assert_array_equal(track.frames, other.frames)
        np.testing.assert_allclose(track.keypoints, other.keypoints, atol=1e-3)


@pytest.mark.parametrize("config", [PLAIN, PLAIN.model_copy(update={"crops": "held", "hold": 0.3})])
def test_a_part_is_predicted_as_if_there_were_no_more(config) -> None:
    reads: list[int] = []
    part = predict_clip(Shown(N_FRAMES, reads=reads), DotFinder(), given(), span=range(33, 63), config=config)
    cut_out = BoxSource({frame: boxes(frame + 33) for frame in range(30)})
    alone = predict_clip(Shown(30, lambda frame: picture(frame + 33)), DotFinder(), cut_out, config=config)
    assert reads == list(range(33, 63)) and part.config == alone.config and part.config["frames"] == 30
    assert part.poses.n_frames == N_FRAMES and list(part.poses.tracks) == list(alone.poses.tracks) == [1, 2]
    for track, other in zip(part.poses.tracks.values(), alone.poses.tracks.values(), strict=True):
        np.testing.assert_array_equal(track.frames, other.frames + 33)
        np.testing.assert_array_equal(track.keypoints, other.keypoints)
    assert part.notes == alone.notes  # boxes beyond the part are no reason to complain


def test_a_part_goes_on_where_it_was_stopped(tmp_path) -> None:
    how = {"span": range(20, 135), "config": PLAIN.model_copy(update={"crops": "held"})}
    whole = predict_clip(Shown(N_FRAMES), DotFinder(), given(), **how)
    with pytest.raises(Interrupted, match=r"after \d+ frames"):
        predict_clip(Shown(N_FRAMES, stop_at=129), DotFinder(), given(), **how, log=tmp_path)
    told: list[tuple[int, int]] = []
    reads: list[int] = []
    found = predict_clip(
        Shown(N_FRAMES, reads=reads), DotFinder(), given(), **how, log=tmp_path,
        progress=lambda what, done, total: told.append((done, total)),
    )  # fmt: skip
    # Kept were the first 7 chunks of 8 frames; what the window and cuts look back on is read again.
    assert reads == list(range(20 + 7 * 8 - 4, 135))
    assert told[0] == (0, 115) and told[-1] == (115, 115)
    for track, other in zip(whole.poses.tracks.values(), found.poses.tracks.values(), strict=True):
        np.testing.assert_array_equal(track.frames, other.frames)
        np.testing.assert_allclose(track.keypoints, other.keypoints, atol=1e-3)


def test_each_frame_is_read_once() -> None:
    reads: list[int] = []
    predict_clip(Shown(30, reads=reads), DotFinder(), given(30), config=PLAIN)
    assert reads == list(range(30))


def test_frames_of_unknown_number_end_by_a_stop() -> None:
    live = Shown(None, stop_at=40)
    with pytest.warns(PosewarperWarning, match="stopped after"):
        found = predict_clip(live, DotFinder(), given(35), config=PLAIN.model_copy(update={"causal": True}))
    assert 35 <= found.config["frames"] <= 40 and found.poses.n_frames == found.config["frames"]


def test_the_whole_frame_finds_a_lone_figure_and_follows_it() -> None:
    def alone(frame: int) -> np.ndarray:
        image = picture(frame)
        image[30:] = 0
        return image

    shown = Shown(60, alone)
    config = PLAIN.model_copy(update={"window": 0})
    found = predict_clip(shown, DotFinder(), BoxSource(follows=True, whole_frame=True), config=config)
    (track,) = found.poses.tracks.values()
    truth = np.stack([true_points(frame)[0] for frame in track.frames])
    assert len(track.frames) == 60 and np.median(np.linalg.norm(track.keypoints - truth, axis=-1)) < 1


def test_nobody_is_in_a_frame_without_a_sure_keypoint() -> None:
    def half_dark(frame: int) -> np.ndarray:
        return picture(0)[:30] if frame >= 6 else np.zeros((30, SIZE[1], 3), np.uint8)

    shown = Shown(12, half_dark, image_size=(30, SIZE[1]))
    config = PLAIN.model_copy(update={"window": 0})
    found = predict_clip(shown, DotFinder(), BoxSource(follows=True, whole_frame=True), config=config)
    assert found.config["frames"] == 12 and {n for t in found.poses.tracks.values() for n in t.frames} == {
        *range(6, 12)
    }


def test_an_untrained_head_is_refused() -> None:
    model = DotFinder()
    model.spec = replace(model.spec, trained={"pose": 1})
    with pytest.raises(ModelError, match="never trained"):
        predict_clip(Shown(3), model, given(3))
    predict_clip(Shown(3), model, given(3), config=PLAIN.model_copy(update={"aggregate": "none"}))


def test_boxes_of_labels() -> None:
    found = boxes_of_labels(replace(labels(0, 5), labelled_frames=np.array([0, 3, 5])))
    assert {frame: len(own) for frame, own in found.items()} == {0: 2, 3: 0, 5: 2}


@pytest.mark.parametrize("frames", [[9, 10, 0], [0, 1], [0, 1, 1]])
def test_records_that_are_not_one_a_frame_are_not_gone_on_with(tmp_path, frames) -> None:
    with RecordLog(tmp_path) as log:
        for frame in frames:
            log.append({"frame": frame, "tracks": [], "keypoints": [], "scores": []})
        log.keep({"done": 3, "tracker": {}, "crops": {}, "heatmaps": [0, 0], "errors": []})
    before = (tmp_path / "records.jsonl").read_bytes()
    with pytest.raises(OutputError, match=r"damaged(.|\n)*--overwrite"):
        predict_clip(Shown(5), DotFinder(), given(5), config=PLAIN, log=tmp_path)
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_progress_is_told_before_the_records_are_opened(tmp_path) -> None:
    log = tmp_path / "log"
    seen: list[tuple[int, bool]] = []
    predict_clip(
        Shown(3), DotFinder(), given(3), config=PLAIN, log=log,
        progress=lambda what, done, total: seen.append((done, log.exists())),
    )  # fmt: skip
    assert seen == [(0, False), (1, True), (2, True), (3, True)]


@dataclass
class NearFinder:
    """What a network sees that knows an animal with head and tail only where it about fills the crop.

    Elsewhere it takes something for the animal: two places in the middle of the crop, and is half sure.
    """

    head: np.ndarray = field(default_factory=lambda: np.array([171.0, 60.0]))
    tail: np.ndarray = field(default_factory=lambda: np.array([195.0, 68.0]))
    looks: list[int] = field(default_factory=list)

    def __call__(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.looks.append(len(boxes))
        points, maxima = [], []
        for x, y, w, h in boxes:
            inside = all(x <= p[0] <= x + w and y <= p[1] <= y + h for p in (self.head, self.tail))
            knows = inside and 0.4 < 24 / max(w, h) < 1.01
            middle = np.array([x + w / 2, y + h / 2])
            points.append([self.head, self.tail] if knows else [middle - 2, middle + 2])
            maxima.append([0.9, 0.8] if knows else [0.6 if w > 100 else 0.1] * 2)
        return np.array(points), np.array(maxima)


@pytest.mark.parametrize("aspect", [1.0, 0.75])
def test_a_small_animal_is_found_in_a_large_frame(aspect: float) -> None:
    look = NearFinder()
    box = find_instance(look, (160, 240), aspect, keypoint_score=0.2, thorough=True)
    assert np.allclose(box, [[171, 56, 24, 16]])
    assert len(look.looks) == 2  # all crops of a round go through the network together
    few = NearFinder()
    box = find_instance(few, (160, 240), aspect, keypoint_score=0.2, thorough=False)
    assert few.looks == [1, 1] and not len(box)


def test_pieces_cover_the_frame_and_overlap_by_a_half() -> None:
    for size, aspect in (((480, 640), 1.0), ((480, 640), 0.75), ((1000, 100), 1.3), ((64, 64), 1.0)):
        for level in frame_pieces(size, aspect):
            assert np.allclose(level[:, :2].min(0), -0.5)
            assert np.allclose((level[:, :2] + level[:, 2:]).max(0), np.array(size[::-1]) - 0.5)
            for axis in (0, 1):
                steps = np.diff(np.unique(level[:, axis]))
                assert (steps <= level[0, 2 + axis] / 2 + 1e-6).all()
    assert frame_pieces((20, 20), 1.0) == []


def test_somebody_small_is_found_on_the_first_frame_of_a_part() -> None:
    def small(frame: int) -> np.ndarray:
        image = np.zeros((240, 360, 3), np.uint8)
        image[100:130, 200:290] = picture(frame)[:30]
        return image

    shown, source = Shown(30, small, image_size=(240, 360)), BoxSource(follows=True, whole_frame=True)
    config = PLAIN.model_copy(update={"window": 0})
    found = predict_clip(shown, DotFinder(), source, span=range(13, 18), config=config)
    (track,) = found.poses.tracks.values()
    assert track.frames.tolist() == [13, 14, 15, 16, 17]


def test_a_part_is_searched_by_a_detector_on_its_first_frame() -> None:
    looked: list[int] = []

    def detect(image: np.ndarray) -> np.ndarray:
        looked.append(int(image[0, 0, 0]))
        return boxes(looked[-1])

    def numbered(frame: int) -> np.ndarray:
        image = picture(frame)
        image[0, 0, 0] = frame
        return image

    source = BoxSource(detect=detect, detect_every=5, first=13, follows=True)
    predict_clip(Shown(30, numbered), DotFinder(), source, span=range(13, 25), config=PLAIN)
    assert looked == [13, 18, 23]


def test_somebody_small_who_enters_is_found_within_ten_frames() -> None:
    looked: list[int] = []

    class Counting(DotFinder):
        def heatmaps(self, crops):
            looked.append(len(crops))
            return super().heatmaps(crops)

    def entering(frame: int) -> np.ndarray:
        image = np.zeros((240, 360, 3), np.uint8)
        if frame >= 13:
            image[100:130, 200:290] = picture(frame)[:30]
        return image

    shown = Shown(30, entering, image_size=(240, 360))
    config = PLAIN.model_copy(update={"window": 0})
    found = predict_clip(shown, Counting(), BoxSource(follows=True, whole_frame=True), config=config)
    (track,) = found.poses.tracks.values()
    truth = np.stack([true_points(frame)[0] + (200, 100) for frame in track.frames])
    assert track.frames[0] <= 20 and track.frames[-1] == 29
    assert np.median(np.linalg.norm(track.keypoints - truth, axis=-1)) < 1
    # While nobody is there, pieces of the frame are looked at on every tenth frame alone.
    assert sum(looked) < 30 * 30
