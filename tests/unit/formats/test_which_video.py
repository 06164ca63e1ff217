"""Which video labels are of, by the rules of each format, and how one of several is chosen."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from label_documents import FakeVideo, write_coco
from label_samples import run_command

from posewarper.errors import LabelsError, PosewarperWarning
from posewarper.formats.labels import read_annotations, write_labels
from posewarper.formats.records import LabelFile
from posewarper.skeletons import Skeleton
from posewarper.structures import Labels, Track
from posewarper.video.source import open_video
from posewarper.video.writing import write_video

FRAMES = [2, 10, 18]


def labels_of(video: str) -> Labels:
    track = Track(np.array(FRAMES), np.full((3, 2, 2), 7.0) + np.arange(2)[:, None])
    return Labels(Skeleton(("head", "tail")), {0: track}, np.array(FRAMES), (480, 640), video=video)


def table(path: Path, images: list[str], scorer: str = "me") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{image},{5 + n},6" for n, image in enumerate(images)]
    path.write_text(
        "\n".join([f"scorer,{scorer},{scorer}", "bodyparts,head,head", "coords,x,y", *rows]) + "\n"
    )
    return path


def predictions(path: Path, scorer: str) -> Path:
    top = [f"{title}" + f",{name}" * 3 for title, name in (("scorer", scorer), ("bodyparts", "head"))]
    rows = [f"{frame},5,6,0.9" for frame in range(100)]
    path.write_text("\n".join([*top, "coords,x,y,likelihood", *rows]) + "\n")
    return path


def project(folder: Path, videos: list[str], *, labelled: list[str]) -> Path:
    for name in labelled:
        images = [f"labeled-data/{name}/img{frame:04d}.png" for frame in FRAMES]
        table(folder / "labeled-data" / name / "CollectedData_me.csv", images)
    sets = "".join(f"  {video}:\n    crop: 0, 640, 0, 480\n" for video in videos)
    text = f"Task: t\nscorer: me\nvideo_sets:\n{sets}bodyparts: [head]\nskeleton: []\n"
    (folder / "config.yaml").write_text(text)
    return folder / "config.yaml"


def openpose(folder: Path, video: str) -> Path:
    folder.mkdir()
    for frame in FRAMES:
        person = {"person_id": [0], "pose_keypoints_2d": [5, 6, 1] * 18}
        text = json.dumps({"people": [person]})
        (folder / f"{video}_{frame:012d}_keypoints.json").write_text(text)
    return folder


def long_table(path: Path, videos: list[str]) -> Path:
    rows = [f"{video},{frame + n},head,5,6" for n, video in enumerate(videos) for frame in FRAMES]
    path.write_text("\n".join(["video,frame,keypoint,x,y", *rows]) + "\n")
    return path


def project_file(path: Path, video: str) -> Path:
    write_labels(path, labels_of(video))
    return path


# What makes a file of labels of a video called so, in each format.
MAKERS = {
    "COCO, by folder": lambda d, v: write_coco(d / "a.json", [f"images/{v}/img{f:04d}.png" for f in FRAMES]),
    "COCO, folder with suffix": lambda d, v: write_coco(
        d / "a.json", [f"{v}.mp4/{f:04d}.png" for f in FRAMES]
    ),
    "Roboflow": lambda d, v: write_coco(d / "a.json", [f"{v}_mp4-{f:04d}_jpg.rf.a1b2.jpg" for f in FRAMES]),
    "DLC table": lambda d, v: table(d / "t.csv", [f"labeled-data/{v}/img{f:04d}.png" for f in FRAMES]),
    "DLC table of Windows": lambda d, v: table(
        d / "t.csv", [f"labeled-data\\{v}\\img{f:04d}.png" for f in FRAMES]
    ),
    "DLC table in its folder": lambda d, v: table(
        d / "labeled-data" / v / "CollectedData_me.csv", [f"img{f:04d}.png" for f in FRAMES]
    ),
    "DLC project": lambda d, v: project(d, [f"C:\\x\\{v}.avi"], labelled=[v]),
    "DLC demo project": lambda d, v: project(d, ["WILL BE UPDATED BY DEMO CODE"], labelled=[v]),
    "DLC results": lambda d, v: predictions(
        d / f"{v}DLC_mobnet_shuffle1_500_filtered.csv", "DLC_mobnet_shuffle1_500"
    ),
    "DLC results of another scorer": lambda d, v: predictions(d / f"{v}DLC_x.csv", "posewarper"),
    "SuperAnimal results": lambda d, v: predictions(
        d / f"{v}_superanimal_quadruped.csv", "superanimal_quadruped"
    ),
    "Lightning Pose results": lambda d, v: predictions(d / f"{v}.csv", "heatmap_tracker"),
    "SLEAP": lambda d, v: project_file(d / "a.slp", f"/data/{v}.mp4"),
    "NWB": lambda d, v: project_file(d / "a.nwb", f"/data/{v}.avi"),
    "native": lambda d, v: project_file(d / "a.json", f"{v}.mp4"),
    "OpenPose": lambda d, v: openpose(d / "json", v),
    "long table": lambda d, v: long_table(d / "l.csv", [f"/data/{v}.mp4"]),
}


@pytest.mark.parametrize("form", MAKERS)
def test_labels_of_another_video_are_told(tmp_path: Path, form: str) -> None:
    path = MAKERS[form](tmp_path, "other")
    video = FakeVideo(path=str(tmp_path / "clip.mp4"))
    (tmp_path / "clip.mp4").touch()
    with pytest.warns(PosewarperWarning, match=r"name the video other.*this is clip.mp4.*--labels-of other"):
        read_annotations(path, video=video)
    # Whoever says so has looked.
    read_annotations(LabelFile(path, video="other"), video=video)


@pytest.mark.parametrize("form", MAKERS)
def test_labels_of_the_video_itself_are_read_without_a_word(tmp_path: Path, form: str) -> None:
    path = MAKERS[form](tmp_path, "Clip 1")
    (tmp_path / "clip 1.MP4").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_annotations(path, video=FakeVideo(path=str(tmp_path / "clip 1.MP4")))


@pytest.mark.parametrize("folder", ["images", "train", "frames", "extracted_frames", "clip_frames", "01"])
def test_folders_of_frames_need_not_be_called_as_the_video(tmp_path: Path, folder: str) -> None:
    (tmp_path / "clip.mp4").touch()
    path = write_coco(tmp_path / "a.json", [f"{folder}/img{f:04d}.png" for f in FRAMES])
    assert len(read_annotations(path, video=FakeVideo(path=str(tmp_path / "clip.mp4"))).labelled_frames) == 3


SEVERAL = {
    "COCO folders": (
        lambda d: write_coco(
            d / "a.json", ["s1/cam/img0002.png", "s2/cam/img0010.png", "s1/cam/img0018.png"]
        ),
        {"s1/cam": [2, 18], "s2/cam": [10]},
    ),
    "COCO vid_id": (
        lambda d: write_vids(write_coco(d / "a.json", ["a/img0002.png", "b/img0010.png", "a/img0018.png"])),
        {"7/a": [2, 18], "9/b": [10]},
    ),
    "names that begin otherwise": (
        lambda d: write_coco(d / "a.json", ["mouse1_0002.png", "mouse2_0010.png", "mouse1_0018.png"]),
        {"mouse1": [2, 18], "mouse2": [10]},
    ),
    "Roboflow": (
        lambda d: write_coco(
            d / "a.json", [f"{v}_mp4-{f:04d}_jpg.rf.a.jpg" for v, f in zip("aba", FRAMES, strict=True)]
        ),
        {"a": [2, 18], "b": [10]},
    ),
    "Lightning Pose": (
        lambda d: table(
            d / "CollectedData.csv",
            [
                "labeled-data/180607_004/img0002.png",
                "labeled-data/x/img0010.png",
                "labeled-data/x/img0018.png",
            ],
        ),
        {"180607_004": [2], "x": [10, 18]},
    ),
    "DLC project": (
        lambda d: project(d, ["/v/a.mp4", "/v/b.mp4"], labelled=["a", "b"]),
        {"a": FRAMES, "b": FRAMES},
    ),
    "long table": (
        lambda d: long_table(d / "l.csv", ["x/a.mp4", "y/a.mp4"]),
        {"x/a.mp4": FRAMES, "y/a.mp4": [f + 1 for f in FRAMES]},
    ),
}


def write_vids(path: Path) -> Path:
    document = json.loads(path.read_text())
    for image in document["images"]:
        image |= {"vid_id": 7 if "a/" in image["file_name"] else 9, "frame_id": int(image["file_name"][5:9])}
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("form", SEVERAL)
def test_one_of_several_videos_is_chosen_by_the_name_that_the_error_lists(tmp_path: Path, form: str) -> None:
    make, videos = SEVERAL[form]
    path = make(tmp_path)
    (tmp_path / "clip.mp4").touch()
    video = FakeVideo(path=str(tmp_path / "clip.mp4"))
    with pytest.raises(LabelsError, match=r"fix: .*--labels-of") as error:
        read_annotations(path, video=video)
    assert f"got:      {', '.join(sorted(videos))}; " in str(error.value)
    for name, frames in videos.items():
        found = read_annotations(LabelFile(path, video=name), video=video)
        assert found.labelled_frames.tolist() == frames
    with pytest.raises(LabelsError, match="says nothing of this video"):
        read_annotations(LabelFile(path, video="nobody"), video=video)


def test_images_that_tell_no_video_are_not_left_out_in_silence(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "l.json", ["clip/img0002.png", "img0010.png", "clip/img0018.png"])
    (tmp_path / "clip.mp4").touch()
    with pytest.warns(
        PosewarperWarning, match="do not tell their video are left out: those without a folder"
    ):
        labels = read_annotations(path, video=FakeVideo(path=str(tmp_path / "clip.mp4")))
    assert labels.labelled_frames.tolist() == [2, 18]


def test_the_path_of_the_video_is_compared_from_its_end(tmp_path: Path) -> None:
    path = SEVERAL["COCO folders"][0](tmp_path)
    for place, frames in (("s1", [2, 18]), ("s2", [10])):
        found = read_annotations(path, video=FakeVideo(path=f"/elsewhere/{place}/cam.mp4"))
        assert found.labelled_frames.tolist() == frames
        # Also a folder of its frames that is called otherwise.
        frame_names = tuple(f"img{n:04d}.png" for n in range(100))
        folder = FakeVideo(path=f"/elsewhere/{place}/cam/frames", frame_names=frame_names)
        assert read_annotations(path, video=folder).labelled_frames.tolist() == frames


def test_sleap_tells_videos_of_one_name_apart_and_lists_of_images_by_their_names(tmp_path: Path) -> None:
    sio = pytest.importorskip("sleap_io")
    skeleton, videos, frames = sio.Skeleton(["head"]), [], []
    images = [f"/data/third/img{f:04d}_exp{f % 3}.png" for f in FRAMES]
    for name in ("/a/s1/cam.mp4", "/b/s2/cam.mp4", images):
        is_list = isinstance(name, list)
        facts = {"type": "MediaVideo", "filename": name, "shape": [100, 480, 640, 3], "grayscale": False}
        if is_list:
            facts = {"type": "ImageVideo", "filename": name[0], "filenames": name, "shape": [3, 480, 640, 3]}
        videos.append(sio.Video(filename=name, open_backend=False, backend_metadata=facts))
        for place, frame in enumerate(FRAMES[: 3 if is_list else len(videos)]):
            points = np.array([[5.0, frame]])
            found = [sio.Instance.from_numpy(points, skeleton=skeleton)]
            index = place if is_list else frame
            frames.append(sio.LabeledFrame(video=videos[-1], frame_idx=index, instances=found))
    path = tmp_path / "a.slp"
    sio.save_slp(
        sio.Labels(frames, videos=videos, skeletons=[skeleton]), str(path), embed=False, verbose=False
    )
    for name, expected in (("s1/cam", [2]), ("s2/cam", [2, 10]), ("third", FRAMES)):
        found = read_annotations(path, video=FakeVideo(path=f"/x/{name}.mp4"))
        assert found.labelled_frames.tolist() == expected
        assert found.tracks[0].keypoints[:, 0, 1].tolist() == expected


def test_the_options_work_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, out = SEVERAL["Lightning Pose"][0](tmp_path), tmp_path / "out.json"
    assert run_command("convert", path, out) == 2
    said = capsys.readouterr().err
    assert "--labels-of 180607_004" in said and "train loose_images.yaml" in said
    assert run_command("convert", path, out, "--labels-of", "x", "--frame-number", "-1") == 0
    assert "2 labelled frames" in capsys.readouterr().out
    assert run_command("info", path, "--labels-of", "180607_004") == 0
    assert "180607_004" in capsys.readouterr().out


def picture(frame: int, film: int) -> np.ndarray:
    """A frame (120, 160, 3) of a film: one room, and in each film the animal goes its own way."""
    x = 10 + 7 * frame % 140
    ways = [(x, 30), (160 - x, 80)]
    image = np.full((120, 160, 3), 150, np.uint8)
    image[:, ::20] = 110
    cv2.circle(image, ways[film], 8, (30, 20, 20), -1)
    return image


def film(path: Path, number: int, n_frames: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (picture(frame, number) for frame in range(n_frames)), fps=25)
    return path


def with_images(folder: Path, names: list[str]) -> None:
    for name, frame in zip(names, FRAMES, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), picture(frame, 0))


def coco_with_images(folder: Path) -> Path:
    names = [f"first/img{frame:04d}.png" for frame in FRAMES]
    with_images(folder / "images", names)
    (folder / "annotations").mkdir()
    return write_coco(folder / "annotations" / "a.json", [f"images/{name}" for name in names])


def project_with_images(folder: Path) -> Path:
    path = project(folder, ["WILL BE UPDATED BY DEMO CODE"], labelled=["first"])
    with_images(folder, [f"labeled-data/first/img{frame:04d}.png" for frame in FRAMES])
    return path


def table_with_images(folder: Path) -> Path:
    return project_with_images(folder).parent / "labeled-data" / "first" / "CollectedData_me.csv"


def sleap_of_images(folder: Path) -> Path:
    sio = pytest.importorskip("sleap_io")
    names = [f"first/img{frame:04d}.png" for frame in FRAMES]
    with_images(folder, names)
    facts = {"type": "ImageVideo", "filename": names[0], "filenames": names, "shape": [3, 120, 160, 3]}
    video = sio.Video(filename=names, open_backend=False, backend_metadata=facts)
    skeleton = sio.Skeleton(["head"])
    frames = [
        sio.LabeledFrame(
            video=video,
            frame_idx=n,
            instances=[sio.Instance.from_numpy(np.array([[5.0, 6.0]]), skeleton=skeleton)],
        )
        for n in range(3)
    ]
    labels = sio.Labels(frames, videos=[video], skeletons=[skeleton])
    sio.save_slp(labels, str(folder / "a.slp"), embed=False, verbose=False)
    return folder / "a.slp"


WITH_IMAGES = {
    "COCO": coco_with_images,
    "DLC project": project_with_images,
    "DLC table": table_with_images,
    "SLEAP": sleap_of_images,
}


@pytest.mark.parametrize("form", WITH_IMAGES)
def test_the_labelled_images_tell_whether_the_video_was_renamed(tmp_path: Path, form: str) -> None:
    path = WITH_IMAGES[form](tmp_path)
    with (
        open_video(film(tmp_path / "v" / "renamed.mp4", 0)) as video,
        pytest.warns(PosewarperWarning, match=r"name the video first.*look like the labelled images.*a copy"),
    ):
        assert read_annotations(path, video=video).labelled_frames.tolist() == FRAMES
    with open_video(film(tmp_path / "v" / "second.mp4", 1)) as video:
        with pytest.raises(LabelsError, match="of another video") as error:
            read_annotations(path, video=video)
        for part in ("the video first", "second.mp4", "img0002.png", "--labels-of first"):
            assert part in str(error.value)
        # Whoever says so is believed.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = read_annotations(LabelFile(path, video="first"), video=video)
        assert found.labelled_frames.tolist() == FRAMES


@pytest.mark.parametrize("place", ["first.avi", "videos/first.avi", "elsewhere/first.mp4"])
@pytest.mark.parametrize("form", ["native", "SLEAP", "NWB", "OpenPose", "long table", "DLC results"])
def test_without_images_the_video_that_is_named_is_compared(tmp_path: Path, form: str, place: str) -> None:
    path = MAKERS[form](tmp_path, "first")
    n_frames = 100 if form == "DLC results" else 20
    # Beside the labels, or beside the video that is opened.
    film(tmp_path / "first.mp4", 0, n_frames).rename(film(tmp_path / place, 0))
    with open_video(film(tmp_path / "elsewhere" / "second.mp4", 1, n_frames)) as video:
        with pytest.raises(LabelsError, match="of another video") as error:
            read_annotations(path, video=video)
        assert f"give {tmp_path / place}; " in str(error.value)
    copy = film(tmp_path / "elsewhere" / "copy.mp4", 0, n_frames)
    with open_video(copy) as video, pytest.warns(PosewarperWarning, match="a copy of the same video"):
        try:
            read_annotations(path, video=video)
        except LabelsError as other:  # these labels are of larger frames, which is said later
            assert "another size" in str(other)


def test_a_video_that_bears_the_name_and_cannot_be_compared_is_named(tmp_path: Path) -> None:
    path = MAKERS["long table"](tmp_path, "first")
    (tmp_path / "first.mp4").write_bytes(b"no video")
    with (
        open_video(film(tmp_path / "second.mp4", 1)) as video,
        pytest.raises(LabelsError, match=r"give .*first.mp4; .*--labels-of first"),
    ):
        read_annotations(path, video=video)


def test_images_cut_out_of_frames_are_not_compared(tmp_path: Path) -> None:
    path = table_with_images(tmp_path)
    for file in path.parent.glob("*.png"):
        cv2.imwrite(str(file), cv2.imread(str(file))[:60])
    with (
        open_video(film(tmp_path / "v" / "second.mp4", 1)) as video,
        pytest.warns(PosewarperWarning, match="check that they belong together"),
    ):
        read_annotations(path, video=video)
