"""All settings, each default written once. Those of recipes are the paper's; the others fit own clips."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from posewarper.errors import ConfigError, did_you_mean, unknown_name


class Settings(BaseModel):
    """A frozen group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def read(cls, values: Mapping[str, Any], path: str | os.PathLike[str] | None = None) -> Self:
        """Build the settings from plain values; ``path`` is named in errors.

        Raises:
            ConfigError: if a name is unknown (with the nearest known one) or a value is out of its limits.
        """
        cls._check_names(values, "", path)
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            given = first["input"]
            raise ConfigError(
                f"setting {'.'.join(map(str, first['loc']))} has an impossible value",
                path=path,
                expected=first["msg"].removeprefix("Value error, "),
                got=", ".join(map(str, given)) or "nothing" if isinstance(given, dict) else given,
                fix="give a value within the limits",
            ) from error

    @classmethod
    def _check_names(cls, values: Any, place: str, path: str | os.PathLike[str] | None) -> None:
        """Refuse unknown names, also in the groups inside, each by its whole place: ``train.epoch``."""
        if isinstance(values, list | tuple):
            for value in values:
                cls._check_names(value, place, path)
        if not isinstance(values, Mapping):
            return
        for name, value in values.items():
            if name not in cls.model_fields:
                fix = did_you_mean(name, cls.model_fields).replace("mean ", f"mean {place}")
                raise unknown_name(
                    f"unknown setting {place}{name}", name, cls.model_fields, path=path, fix=fix
                )
            inner = cls.model_fields[name].annotation
            for kind in (inner, *getattr(inner, "__args__", ())):
                if isinstance(kind, type) and issubclass(kind, Settings):
                    kind._check_names(value, f"{place}{name}.", path)


class NetworkConfig(Settings):
    """Architecture of a model for one's own clips; the paper's is hrnet_w48 with 20 blocks of 128."""

    backbone: str = "tf_efficientnet_lite0"
    backbone_weights: str = Field(
        default="auto",
        description="auto (trained ones if there are any), none (random), imagenet, a file or hf:OWNER/NAME",
    )
    neck: Literal["pyramid", "upsampling", "bilinear"] = "pyramid"
    crop_size: tuple[int, int] = Field(default=(192, 192), description="(height, width), multiples of 32")
    head_width: int = Field(default=16, ge=1)
    head_blocks: int = Field(default=4, ge=1)
    # The paper adds 18 and 24, which on heatmaps of 48 pixels reach outside; see docs/log.md.
    head_dilations: tuple[int, ...] = (3, 9)


class FitConfig(Settings):
    """How a model is fitted to a clip. Budgets are iterations, never seconds."""

    pose_iterations: int = Field(default=480, ge=0, description="at most, on the labels")
    enough: float = Field(default=0.1, gt=0, description="share of the loss at which the labels are learned")
    pseudo_iterations: int = Field(default=120, ge=0, description="on propagated poses; 0 for none")
    warp_iterations: int = Field(default=150, ge=0)
    estimate_first: bool = Field(
        default=True, description="propagate before the stages that serve new videos, not after them"
    )
    pose_batch: int = Field(default=8, ge=2)
    warp_batch: int = Field(default=8, ge=2)
    pose_learning_rate: float = Field(default=2e-3, gt=0)
    warp_learning_rate: float = Field(default=1e-3, gt=0)
    sigma: float = Field(default=2.0, gt=0, description="of the target Gaussians, in heatmap pixels")
    rotation: float = Field(default=30.0, ge=0, description="largest rotation in degrees")
    scale: float = Field(default=0.25, ge=0, lt=1, description="largest change of scale, as a share")
    shift: float = Field(default=0.06, ge=0, lt=1, description="largest shift, as a share of the crop")
    half_body: float = Field(default=0.15, ge=0, le=1, description="probability of showing half of the body")
    flip: float = Field(default=0.5, ge=0, le=1, description="probability of a mirror image")


EFFORTS: dict[str, FitConfig] = {
    "fast": FitConfig(pose_iterations=0, pseudo_iterations=0, warp_iterations=0),
    "normal": FitConfig(),
    "best": FitConfig(
        pose_iterations=900,
        enough=0.02,
        pseudo_iterations=400,
        warp_iterations=500,
        estimate_first=False,
        pose_batch=16,
    ),
}


def effort_config(effort: str) -> FitConfig:
    """Return the settings of an effort by name, ConfigError if there is none."""
    if effort not in EFFORTS:
        raise unknown_name("unknown effort", effort, EFFORTS)
    return EFFORTS[effort]


MIN_SCORE = 0.2
"""A propagated keypoint becomes a label if it scores more than this, as in the original."""
SOURCES = ("dataset", "made_up", "clips", "clips_file", "images")
"""The settings of ``data`` that say what is learned from; one of them is given."""
STAGES = ("pose", "warper", "sparse_pose", "sparse_warper", "retraining")


class ModelSettings(Settings):
    """The network, and the weights that it starts from."""

    backbone: str = Field(default="hrnet_w48", description="timm name of the backbone, or vitpose_base, ...")
    neck: Literal["upsampling", "pyramid", "bilinear"] = "upsampling"
    backbone_weights: str = Field(
        default="none",
        description="auto, none (random), imagenet, a file or hf:OWNER/NAME; not with start",
    )
    skeleton: str = Field(default="posetrack", description="a preset, or 'labels' for that of the labels")
    crop_size: tuple[int, int] = Field(default=(384, 288), description="(height, width), multiples of 32")
    sigma: float = Field(default=3.0, gt=0, description="of the target Gaussians, in heatmap pixels")
    head_width: int = Field(default=128, ge=1)
    head_blocks: int = Field(default=20, ge=1)
    head_dilations: tuple[int, ...] = (3, 6, 12, 18, 24)
    start: str | None = Field(default=None, description="model.pt, or a .pth of the original or mmpose")


class ClipSettings(Settings):
    """One video of one's own and its labels."""

    video: str
    labels: str
    labels_of: str | None = Field(default=None, description="which video of the label file is meant")
    frame_number: int | None = Field(default=None, description="which number in images' names is the frame")
    unlabelled: Literal["unknown", "absent"] = Field(
        default="unknown", description="what keypoints without a label are on a labelled frame"
    )
    pseudo_labels: str | None = Field(default=None, description="poses.json of `posewarper propagate`")


class ImageSettings(Settings):
    """Separate labelled images, of any videos and sizes."""

    labels: str = Field(description="a DeepLabCut or Lightning Pose project or table, or COCO keypoints JSON")
    folder: str | None = Field(default=None, description="where the names of images begin, if not found")


class PseudoSettings(Settings):
    """Poses that are propagated before the training, from labels to the frames around them, and join them."""

    model: str | None = Field(default=None, description="checkpoint of a trained warper")
    reach: int = Field(default=3, ge=1, description="frames to either side of a labelled one")
    min_score: float = Field(default=MIN_SCORE, ge=0, description="keypoints that score no more are left out")
    # So far off a keypoint may come back to its label, as a share of the crop's longer side.
    max_cycle: float | None = Field(default=0.05, gt=0)


class MadeUpSettings(Settings):
    """A made-up PoseTrack, drawn at the start of the run."""

    videos: tuple[int, int] = Field(default=(6, 2), description="of train and val")
    frames: int = Field(default=24, ge=8)
    size: tuple[int, int] = Field(default=(96, 128), description="(height, width) of the frames")
    people: tuple[int, int] = (1, 2)
    seed: int = Field(default=0, ge=0)


class DataSettings(Settings):
    """What is learned from: a prepared PoseTrack, clips of one's own, or a made-up PoseTrack."""

    dataset: str | None = Field(default=None, description="folder that `posewarper prepare` made")
    made_up: MadeUpSettings | None = None
    clips: tuple[ClipSettings, ...] = Field(default=(), description="videos to learn from")
    validation_clips: tuple[ClipSettings, ...] = Field(default=(), description="videos to validate on")
    clips_file: str | None = Field(default=None, description="CSV of video, labels, split (train or val)")
    images: tuple[ImageSettings, ...] = Field(default=(), description="separate labelled images")
    held_out: float = Field(default=0.1, ge=0, lt=1, description="share of separate images to validate on")
    split: str = "train"
    validation: str | None = Field(default="val", description="split to validate on; none to leave it out")
    selection: str | None = Field(default=None, description="the original's file of frames: stem or path")
    videos: int | None = Field(default=None, ge=1, description="V: learn from this many videos")
    labelled_frames: int | None = Field(default=None, ge=1, description="N: labelled frames of each video")
    subset_seed: int = Field(default=0, ge=0, description="by which V and N are drawn")
    pseudo_labels: str | None = Field(default=None, description="folder or file of poses that join labels")
    pseudo: PseudoSettings | None = Field(default=None, description="make such poses first")

    @field_validator("images", mode="before")
    @classmethod
    def _name_labels(cls, value: Any) -> Any:
        values = value if isinstance(value, list | tuple) else [value]
        return [{"labels": one} if isinstance(one, str) else one for one in values]

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"one of {', '.join(SOURCES)}, not {' and '.join(given)}")
        has_poses = self.pseudo_labels is not None or any(clip.pseudo_labels for clip in self.clips)
        if self.pseudo is not None and has_poses:
            raise ValueError("either pseudo_labels, which are there, or pseudo, by which they are made")
        return self


class AugmentationSettings(Settings):
    """The random crops of training."""

    scale: float = Field(default=0.35, ge=0, lt=1)
    rotation: float = Field(default=45.0, ge=0, description="degrees")
    rotated: float = Field(default=0.6, ge=0, le=1, description="share of the samples that are rotated")
    flipped: float = Field(default=0.5, ge=0, le=1)
    half_body: float = Field(default=0.3, ge=0, le=1)
    half_body_keypoints: int = Field(default=8, ge=0)
    reach: int = Field(default=2, ge=0, description="the neighbour of a pair is at most so many frames away")


class TrainSettings(Settings):
    """How it is learned."""

    stage: Literal["pose", "warper"] = "pose"
    # Targets on whole heatmap pixels and quarter-pixel decoding, or neither; udp is for networks of ViTPose.
    targets: Literal["paper", "exact", "udp"] = "paper"
    epochs: int = Field(default=10, ge=1)
    drops: tuple[int, ...] = Field(default=(5, 7), description="epochs after which the rate falls to a tenth")
    early_drops: bool = Field(default=True, description="each drop an epoch early, as in the original")
    learning_rate: float = Field(default=1e-4, gt=0)
    batch_per_device: int | None = Field(default=None, ge=1)
    global_batch: int | None = Field(default=None, ge=1)
    min_epoch_steps: int = Field(default=1, ge=1, description="few samples are repeated until so many steps")
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients are added up")
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_norm: Literal["paper", "frozen_backbone", "evaluation"] = "paper"  # see docs/training.md
    match_head: bool = Field(default=False, description="the warper also learns from the head of model.start")
    workers: int = Field(default=2, ge=0, description="processes that read and cut, on each device")
    checkpoint_steps: int = Field(default=500, ge=1, description="steps between checkpoints inside an epoch")
    validate_epochs: int = Field(default=1, ge=1, description="epochs between validations")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_batch(self) -> Self:
        if (self.batch_per_device is None) == (self.global_batch is None):
            raise ValueError("either batch_per_device or global_batch")
        if self.match_head and self.stage != "warper":
            raise ValueError("match_head belongs to the stage warper")
        return self


class Recipe(Settings):
    """A whole recipe."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    train: TrainSettings


class SubsetSettings(Settings):
    """A part of the training data."""

    videos: int = Field(ge=1, description="V")
    labelled_frames: int = Field(ge=1, description="N, of each video")


class ExperimentSettings(Settings):
    """The paper's three experiments; each stage is a recipe of its own."""

    propagation: SubsetSettings = SubsetSettings(videos=250, labelled_frames=5)
    # (V, N) of the augmentation experiment.
    sweeps: tuple[tuple[int, int], ...] = ((100, 1), (175, 1), (250, 1), (50, 1), (50, 2), (50, 4))
    changes: tuple[str, ...] = Field(default=(), description="key=value, for the recipes of all stages")
    stages: dict[str, tuple[str, ...]] = Field(default={}, description="stage -> key=value, for its recipe")


class TrackSettings(Settings):
    """How instances become tracks, see :class:`posewarper.prediction.tracker.Tracker`."""

    patience: int = Field(default=30, ge=1, description="frames without a good pose that a track outlives")
    start_score: float = Field(default=0.3, ge=0, le=1, description="of an instance that begins a track")
    pose_score: float = Field(default=0.2, ge=0, le=1, description="mean keypoint score of a good pose")
    keypoint_score: float = Field(default=0.2, ge=0, le=1, description="from which a keypoint counts")
    least_similarity: float = Field(default=0.1, ge=0, le=1, description="of the next instance to a track")
    smoothing: float = Field(default=0.5, ge=0, le=1, description="newest step in the velocity; 0: no motion")
    fading: float = Field(default=0.7, ge=0, le=1, description="velocity left after a frame without a pose")


class ClipPredictionConfig(TrackSettings):
    """Settings of the prediction of one's own videos."""

    aggregate: Literal["paper", "none"] = "paper"
    window: int = Field(default=2, ge=0, description="frames on either side that are summed")
    causal: bool = Field(default=False, description="earlier frames only, for live use")
    crops: Literal["exact", "held"] = "exact"
    hold: float = Field(default=0.08, ge=0, le=0.5, description="share of its size a held crop may be off")
    flip: bool = Field(default=False, description="also look at each crop's mirror image")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    nms_oks: float | None = Field(default=0.9, ge=0, le=1, description="more similar poses are left out")


class PredictionConfig(Settings):
    """Settings of the prediction of a prepared dataset; the defaults are those of the paper."""

    aggregate: Literal["paper", "none"] = "paper"
    ends: Literal["clip", "renormalise"] = "clip"
    box_threshold: float = Field(default=0.2, description="lower boxes of a detector are left out")
    neck: Literal["shoulders", "head_bottom"] = "shoulders"
    nms_oks: float | None = Field(default=None, ge=0, le=1, description="None: no suppression, as the paper")
    skip_missing: bool = Field(default=False, description="leave out frames whose image is missing")
    all_frames: bool = Field(default=False, description="also frames of train and val without labels")
