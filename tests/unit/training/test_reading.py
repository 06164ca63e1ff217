"""Recipes: YAML without its traps, changed settings, errors that help, and the paper's constants."""

from __future__ import annotations

import itertools
import shlex

import pytest
import yaml

from posewarper.errors import ConfigError
from posewarper.options import STAGES
from posewarper.training.recipes import FOLDER, find_recipe, read_experiment, read_recipe, shipped_recipes

TRAIN = "train: {global_batch: 8}\n"
EXPERIMENTS = ("posetrack_experiments.yaml", "tiny_experiments.yaml")


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "own.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e-4", 1e-4), ("2E-3", 2e-3), ("1.5e-3", 1.5e-3), ("5.e-4", 5e-4), (".5e-3", 5e-4), ("1e+0", 1.0)],
)
def test_numbers_with_an_exponent_are_numbers(write, text, expected):
    path = write(f"train: {{global_batch: 8, learning_rate: {text}}}")
    assert yaml.safe_load("1e-4") == "1e-4"  # the trap
    assert read_recipe(path).train.learning_rate == expected
    changed = read_recipe(write(TRAIN), [f"train.learning_rate={text}"])
    assert changed.train.learning_rate == expected


@pytest.mark.parametrize("text", ["no", "on", "off", "y", "NO", "Yes"])
def test_words_that_yaml_takes_for_truth_stay_words(write, text):
    assert read_recipe(write(f"data: {{split: {text}}}\n{TRAIN}")).data.split == text


def test_true_and_false_are_still_truth(write):
    path = write("train: {global_batch: 8, early_drops: false}")
    assert read_recipe(path).train.early_drops is False
    assert read_recipe(path, ["train.early_drops=true"]).train.early_drops is True


def test_changes_reach_groups_that_the_file_does_not_name(write):
    path = write(TRAIN + "data:\n")
    words = ["model.crop_size=[64, 32]", "data.dataset=some folder", "train.epochs=3", "data.validation=null"]
    recipe = read_recipe(path, words)
    assert recipe.model.crop_size == (64, 32) and recipe.data.dataset == "some folder"
    assert recipe.train.epochs == 3 and recipe.data.validation is None
    # The last word counts, and a text may hold the sign itself.
    assert read_recipe(path, ["data.dataset=a", "data.dataset=b=c"]).data.dataset == "b=c"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.epochs"], "key=value"),
        (["=3"], "key=value"),
        (["train.global_batch.more=3"], "global_batch is no group"),
        (["train.epochs=[1"], "not valid YAML"),
        (["train.epoch=3"], "did you mean train.epochs?"),
        (["trian.epochs=3"], "did you mean train?"),
        (["model.zzzz=3"], "use one of the names expected"),
        (["data.made_up.frame=9"], "did you mean data.made_up.frames?"),
        (["train.epochs.more=3"], "got:      more"),
        (["train.epochs=0"], "setting train.epochs has an impossible value"),
        (["train.learning_rate=fast"], "setting train.learning_rate has an impossible value"),
        (["train.batch_norm=papers"], "'paper', 'frozen_backbone' or 'evaluation'"),
        (["data.clips=[{video: a.mp4, label: a.json}]"], "did you mean data.clips.labels?"),
    ],
)
def test_bad_words_are_explained(write, words, said):
    with pytest.raises(ConfigError) as caught:
        read_recipe(write(TRAIN), words)
    assert said in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b", "this is not a recipe"),
        ("train: {epochs: 3}", "either batch_per_device or global_batch"),
        ("train: {batch_per_device: 8, global_batch: 8}", "got:      batch_per_device, global_batch"),
        ("data: {dataset: a, made_up: {}}\n" + TRAIN, "dataset"),
        ("data: {dataset: a, clips: [{video: a, labels: b}]}\n" + TRAIN, "dataset and clips"),
        ("model: {backbone: a}", "setting train has an impossible value"),
        ("train: {global_batch: [", "not valid YAML"),
        ("moddel: {}\n" + TRAIN, "did you mean model?"),
        ("train: {global_batch: 8, global_batc: 9}", "did you mean train.global_batch?"),
    ],
)
def test_bad_files_are_explained_and_named(write, text, said):
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_a_file_that_is_no_text_is_no_recipe(tmp_path):
    (tmp_path / "model.yaml").write_bytes(b"\x80\x02\xff\xfe")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        read_recipe(tmp_path / "model.yaml")


def test_of_two_rivals_the_one_given_last_counts(write):
    path = write("data: {made_up: {frames: 9}}\ntrain: {batch_per_device: 8}")
    recipe = read_recipe(path, ["train.global_batch=32", "data.dataset=here"])
    assert (recipe.train.batch_per_device, recipe.train.global_batch) == (None, 32)
    assert (recipe.data.made_up, recipe.data.dataset) == (None, "here")
    back = read_recipe(path, ["train.global_batch=32", "train.batch_per_device=4"])
    assert (back.train.batch_per_device, back.train.global_batch) == (4, None)


def test_recipes_are_found_by_path_then_by_name(write, monkeypatch, tmp_path):
    assert find_recipe("tiny.yaml") == find_recipe("tiny") == FOLDER / "tiny.yaml"
    path = write(TRAIN, "tiny.yaml")
    monkeypatch.chdir(tmp_path)
    assert find_recipe("tiny.yaml").absolute() == path
    with pytest.raises(ConfigError, match=r"did you mean tiny\.yaml"):
        find_recipe("tinny.yaml")
    with pytest.raises(ConfigError, match="check the path"):
        find_recipe("elsewhere/zzzz.yml")


def command_of(name: str) -> list[str]:
    """The command that a recipe opens with; a long one goes on in the next lines, up to an empty one."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    whole = itertools.takewhile(lambda line: line != "#", lines)
    return shlex.split(" ".join(line.removeprefix("#").partition("   (")[0] for line in whole))


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_opens_with_a_command_of_its_own_that_works(name):
    words = command_of(name)
    assert words[:3] == ["posewarper", "train", name] and words[-2] == "--out"
    recipe = read_recipe(name, words[3:-2])
    # A warper starts from a pose network, and every recipe names its data, or its command does.
    assert recipe.train.stage == "pose" or recipe.model.start
    data = recipe.data
    assert any((data.dataset, data.made_up, data.clips, data.images))


def test_there_are_the_papers_recipes():
    wanted = {f"posetrack{year}_{stage}.yaml" for year in (17, 18) for stage in ("pose", "warper")}
    wanted |= {"sparse_pose.yaml", "sparse_warper.yaml", "retraining.yaml", "tiny.yaml"}
    assert wanted <= set(shipped_recipes()) and not set(EXPERIMENTS) & set(shipped_recipes())


# The original's setup: (epochs, drops, crops or pairs a GPU), by recipe.
@pytest.mark.parametrize(
    ("name", "stage", "schedule"),
    [
        ("posetrack17_pose.yaml", "pose", (3, (5, 7), 16)),
        ("posetrack18_pose.yaml", "pose", (10, (5, 7), 16)),
        ("posetrack17_warper.yaml", "warper", (19, (10, 15), 8)),
        ("posetrack18_warper.yaml", "warper", (20, (10, 15), 8)),
        ("sparse_pose.yaml", "pose", (10, (5, 7), 8)),
        ("sparse_warper.yaml", "warper", (20, (10, 15), 8)),
        ("retraining.yaml", "pose", (10, (5, 7), 16)),
    ],
)
def test_the_papers_constants(name, stage, schedule):
    recipe = read_recipe(name)
    train, model, augmentation = recipe.train, recipe.model, recipe.augmentation
    assert (train.epochs, train.drops, train.batch_per_device) == schedule and train.stage == stage
    assert (train.learning_rate, train.early_drops, train.accumulate) == (1e-4, True, 1)
    assert (train.batch_norm, train.targets, train.precision) == ("paper", "paper", "float32")
    assert (model.backbone, model.crop_size, model.sigma) == ("hrnet_w48", (384, 288), 3)
    assert (model.head_width, model.head_blocks, model.head_dilations) == (128, 20, (3, 6, 12, 18, 24))
    assert (augmentation.rotation, augmentation.scale, augmentation.rotated) == (45, 0.35, 0.6)
    assert (augmentation.flipped, augmentation.half_body, augmentation.half_body_keypoints) == (0.5, 0.3, 8)
    assert augmentation.reach == 2


def test_the_papers_subsets():
    for name in ("sparse_pose.yaml", "sparse_warper.yaml"):
        data = read_recipe(name).data
        assert (data.videos, data.labelled_frames) == (250, 5)
    for name in ("posetrack17_pose.yaml", "posetrack18_warper.yaml"):
        data = read_recipe(name).data
        assert (data.videos, data.labelled_frames, data.split, data.validation) == (
            None,
            None,
            "train",
            "val",
        )
    settings = read_experiment("posetrack_experiments.yaml")
    assert (settings.propagation.videos, settings.propagation.labelled_frames) == (250, 5)
    assert set(settings.sweeps) == {(100, 1), (175, 1), (250, 1), (50, 1), (50, 2), (50, 4)}
    assert not settings.changes and not any(settings.stages.values())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_settings_of_experiments_fit_their_recipes(name):
    settings = read_experiment(name)
    assert find_recipe(name).read_text(encoding="utf-8").startswith("# posewarper experiment posetrack1")
    for stage in STAGES:
        recipe = f"posetrack18_{stage}" if stage in ("pose", "warper") else stage
        assert read_recipe(recipe, settings.stages.get(stage, ())).train.stage in ("pose", "warper")


def test_words_of_the_command_line_come_after_those_of_the_file(write):
    path = write("changes: [train.epochs=3]\nstages: {warper: [train.epochs=4]}", "experiments.yaml")
    settings = read_experiment(path, ["train.epochs=5"])
    assert read_recipe("posetrack18_warper", settings.stages["warper"]).train.epochs == 5
    assert read_recipe("posetrack18_pose", settings.stages["pose"]).train.epochs == 5
    settings = read_experiment(path)
    assert read_recipe("posetrack18_warper", settings.stages["warper"]).train.epochs == 4
    assert read_recipe("posetrack18_pose", settings.stages["pose"]).train.epochs == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {warpers: []}", "no such stage"),
        ("sweep: [[1, 1]]", "did you mean sweeps?"),
        ("propagation: {videos: 0, labelled_frames: 1}", "propagation.videos"),
    ],
)
def test_bad_settings_of_experiments_are_explained(write, text, said):
    with pytest.raises(ConfigError) as caught:
        read_experiment(write(text))
    assert said in str(caught.value)
