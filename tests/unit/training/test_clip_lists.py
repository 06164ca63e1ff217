"""Which videos are learned from and validated on: lists in a file, and no video in both."""

from __future__ import annotations

from pathlib import Path

import pytest

from posewarper.errors import ConfigError
from posewarper.options import ClipSettings, DataSettings, Recipe
from posewarper.training.recipes import choose_clips, label_file, read_clip_list, read_recipe

TRAIN = {"train": {"global_batch": 2}}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "video,labels,split\na.mp4,a.json,train\nsub/b.mp4, /x/b.json,val\nc.mp4,c.json,\n"),
        ("list.tsv", "split\tlabels\tvideo\n\ta.json\ta.mp4\nval\t/x/b.json\tsub/b.mp4\n\tc.json\tc.mp4\n"),
        (
            "list.yaml",
            "- {video: a.mp4, labels: a.json}\n- {video: sub/b.mp4, labels: /x/b.json, split: val}\n"
            "- {video: c.mp4, labels: c.json, split: train}\n",
        ),
    ],
)
def test_a_list_is_read_in_every_form(tmp_path, name, text):
    found = read_clip_list(write(tmp_path / name, text))
    assert found == {
        "train": [
            ClipSettings(video=str(tmp_path / f"{n}.mp4"), labels=str(tmp_path / f"{n}.json")) for n in "ac"
        ],
        "val": [ClipSettings(video=str(tmp_path / "sub" / "b.mp4"), labels="/x/b.json")],
    }


def test_propagated_poses_may_be_listed(tmp_path):
    text = "video,labels,pseudo_labels\na.mp4,a.json,\nb.mp4,b.json,poses.json\n"
    first, second = read_clip_list(write(tmp_path / "list.csv", text))["train"]
    assert first.pseudo_labels is None and second.pseudo_labels == str(tmp_path / "poses.json")


def test_what_keypoints_without_a_label_are_may_be_listed(tmp_path):
    text = "video,labels,unlabelled\na.mp4,a.json,absent\nb.mp4,b.json,\n"
    clips = read_clip_list(write(tmp_path / "list.csv", text))["train"]
    assert [label_file(clip).unlabelled for clip in clips] == ["absent", "unknown"]
    with pytest.raises(ConfigError, match=r"unlabelled has an impossible value[^$]*gone"):
        read_clip_list(write(tmp_path / "list.csv", text.replace("absent", "gone")))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("list.csv", "video,labels\na.mp4,\n", "line 2 .*\n.*\n.*no labels"),
        ("list.csv", "clip,labels\na.mp4,a.json\n", "unknown clip"),
        ("list.csv", "video,labels\na.mp4,a.json,val\n", "unknown more"),
        ("list.csv", "video,labels,split\na.mp4,a.json,test\n", "got: +test"),
        ("list.csv", "video,labels,split\na.mp4,a.json,val\n", "no video to learn from"),
        ("list.csv", "", "the file is empty"),
        ("list.yaml", "video: a.mp4\n", "not a list of videos"),
        ("list.yaml", "- {video: [}\n", "not valid YAML"),
        ("list.yaml", "- {video: a.mp4}\n", "row 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, text, said):
    with pytest.raises(ConfigError, match=said):
        read_clip_list(write(tmp_path / name, text))


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot read this list"):
        read_clip_list(tmp_path / "nowhere.csv")


def test_a_video_may_not_be_in_both_lists(tmp_path, monkeypatch):
    write(tmp_path / "a.mp4", "")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    monkeypatch.chdir(tmp_path)
    one, same = (
        {"video": "a.mp4", "labels": "a.json"},
        {"video": str(tmp_path / "link.mp4"), "labels": "b.json"},
    )
    with pytest.raises(ConfigError, match="in both lists"):
        choose_clips(DataSettings(clips=(one,), validation_clips=(same,)))  # type: ignore[arg-type]
    other = {"video": "b.mp4", "labels": "b.json"}
    clips, validation = choose_clips(DataSettings(clips=(one,), validation_clips=(other,)))  # type: ignore[arg-type]
    assert [clip.video for clip in clips] == ["a.mp4"] and [clip.video for clip in validation] == ["b.mp4"]


def test_a_list_joins_the_clips_to_validate_on(tmp_path):
    path = write(tmp_path / "list.csv", "video,labels,split\na.mp4,a.json,\nb.mp4,b.json,val\n")
    extra = ClipSettings(video="c.mp4", labels="c.json")
    clips, validation = choose_clips(DataSettings(clips_file=str(path), validation_clips=(extra,)))
    assert [Path(clip.video).name for clip in clips] == ["a.mp4"]
    assert [Path(clip.video).name for clip in validation] == ["c.mp4", "b.mp4"]


def test_settings_that_contradict_each_other():
    clip = {"video": "a.mp4", "labels": "a.json"}
    with pytest.raises(ConfigError, match="clips and clips_file"):
        Recipe.read({**TRAIN, "data": {"clips": [clip], "clips_file": "list.csv"}})
    with pytest.raises(ConfigError, match="either pseudo_labels"):
        Recipe.read({**TRAIN, "data": {"clips": [{**clip, "pseudo_labels": "p.json"}], "pseudo": {}}})
    with pytest.raises(ConfigError, match=r"unknown setting data\.clips\.label\n(.|\n)*data\.clips\.labels"):
        Recipe.read({**TRAIN, "data": {"clips": [{"video": "a.mp4", "label": "a.json"}]}})


@pytest.mark.parametrize("name", ["own_clips_pose", "own_clips_warper", "own_clips_retraining"])
def test_the_source_that_is_named_last_counts(name):
    words = ["data.clips=[{video: a.mp4, labels: a.json}]", "data.clips_file=list.csv"]
    recipe = read_recipe(name, words)
    assert recipe.data.clips == () and recipe.data.clips_file == "list.csv"
    assert recipe.model.skeleton == "labels" and recipe.train.targets == "exact"
