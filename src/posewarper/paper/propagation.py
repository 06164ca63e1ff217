"""The paper's propagation over a prepared dataset: label files of propagated poses, and their official AP."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torchvision.models.optical_flow import RAFT

from posewarper.errors import LabelsError, PosewarperWarning, unknown_name
from posewarper.evaluation.posetrack import PoseTrackScore, score_posetrack
from posewarper.model.network import PoseWarper
from posewarper.motion.raft import load_raft
from posewarper.paper.carrying import Rules, check_method, propagate_video
from posewarper.paper.prediction import dataset_frames, describe_request, make_or_read
from posewarper.posetrack.dataset import Dataset, DatasetVideo
from posewarper.posetrack.posetrack18 import read_posetrack18
from posewarper.posetrack.selection import REACH, Step, longest_run, nearest_steps, propagation_plan
from posewarper.processes import of_each
from posewarper.runs import claim, held_by_first
from posewarper.structures import InstanceTable, Progress, silent

PLANS = ("consecutive", "neighbours")


def consecutive_steps(table: InstanceTable, *, keep: Collection[int] | None = None) -> list[Step]:
    """Return the steps of the propagation experiment: a run of labelled frames, filled from every seventh.

    The rule is :func:`posewarper.posetrack.selection.propagation_plan`, on the longest run of labelled frames
    (of those in ``keep``, if given). A run of three or fewer gives no steps; the original stops.
    """
    numbers = _labelled(table, keep)
    if not numbers or len(longest_run(numbers)) <= REACH:
        return []
    return propagation_plan(numbers)


def neighbour_steps(
    table: InstanceTable,
    *,
    reach: int = REACH,
    keep: Collection[int] | None = None,
    numbers: Collection[int] | None = None,
) -> list[Step]:
    """Return the steps of the augmentation experiment: from every labelled frame to those around it.

    A frame that two labelled frames reach is filled once, from the nearer, and from the earlier on a tie; the
    original fills it from both. No labelled frame is filled. Steps rise, labelled frame by labelled frame.

    Args:
        table: the labels.
        reach: how many frames to either side.
        keep: numbers of the frames that count as labelled; None for all that are.
        numbers: of the frames that there are; None for those of the table.
    """
    labelled = _labelled(table, keep)
    there = set(table.frame_numbers.tolist() if numbers is None else numbers) - set(labelled)
    steps = nearest_steps(labelled, there, reach)
    return sorted(steps, key=lambda step: (step.labelled, step.number))


def plan_dataset(
    dataset: Dataset,
    split: str,
    plan: str,
    *,
    selection: Mapping[str, Collection[int]] | None = None,
    reach: int = REACH,
) -> dict[str, list[Step]]:
    """Return the steps of every video of a split that has any, by file stem.

    Args:
        dataset: made by ``posewarper prepare``.
        split: ``train`` or ``val``.
        plan: ``consecutive`` (:func:`consecutive_steps`) or ``neighbours`` (:func:`neighbour_steps`, with
            ``reach``, onto frames that can be read).
        selection: file stem -> numbers of the frames that count as labelled; other videos are left out. None
            for all videos and labels.

    Raises:
        ConfigError: if there is no such plan.
        LabelsError: if the selection names a video or a labelled frame that is not there, or no video has
            any step.
    """
    if plan not in PLANS:
        raise unknown_name("unknown plan of propagation", plan, PLANS)
    videos = {video.file_stem: video for video in dataset.of_split(split)}
    strangers = sorted(set(selection or ()) - set(videos))
    if strangers:
        raise LabelsError(
            f"{len(strangers)} of the selected videos are not in the split {split!r}",
            path=dataset.root,
            expected=", ".join(list(videos)[:3]) or "videos",
            got=", ".join(strangers[:3]),
            fix="name file stems of this split",
        )
    steps: dict[str, list[Step]] = {}
    for stem in videos if selection is None else [stem for stem in videos if stem in selection]:
        keep, table = None if selection is None else selection[stem], dataset.table(videos[stem])
        if plan == "consecutive":
            steps[stem] = consecutive_steps(table, keep=keep)
        else:
            there = set(videos[stem].numbers) - videos[stem].missing
            steps[stem] = neighbour_steps(table, reach=reach, keep=keep, numbers=there)
    found = {stem: own for stem, own in steps.items() if own}
    if not found:
        runs = f"a video with more than {REACH} labelled frames in a row"
        raise LabelsError(
            f"there is nothing to propagate in the {len(steps)} videos of the split {split!r}",
            path=dataset.root,
            expected="labelled frames" if plan == "neighbours" else runs,
            fix="name another split, selection or plan",
        )
    return found


def _labelled(table: InstanceTable, keep: Collection[int] | None) -> list[int]:
    labelled = np.unique(table.frame_numbers[table.is_labelled]).tolist()
    if keep is None:
        return labelled
    strangers = sorted(set(keep) - set(labelled))
    if strangers:
        raise LabelsError(
            f"frames of {table.video} were named as labelled, but they are not",
            expected="numbers of labelled frames",
            got=strangers[:10],
            fix="select labelled frames only",
        )
    return sorted(set(keep))


POSES = "poses"  # the folder of the label files in a folder of results

Plan = Mapping[str, Sequence[Step]]


@dataclass(frozen=True)
class PropagationResult:
    """How much a propagation over a dataset came to."""

    folder: Path  # of the label files, one a video
    videos: int
    frames: int  # that were filled, labelled ones included
    unfilled: int  # steps that were left out because a frame is missing
    instances: int
    reused: int  # videos that an earlier run had done already


def propagate_dataset(
    dataset: Dataset,
    model: PoseWarper | None,
    out: str | os.PathLike[str],
    *,
    split: str,
    method: str,
    plan: Plan,
    rules: Rules | None = None,
    raft: RAFT | None = None,
    batch: int | None = None,
    overwrite: bool | None = False,
    progress: Progress = silent,
) -> PropagationResult:
    """Propagate the labels of a split and write ``out/poses/STEM.json``, a PoseTrack18 file a video.

    :func:`posewarper.paper.carrying.propagate_video` says what a file holds, and describes the arguments
    that are not below. A run keeps the videos that an earlier run with the same request has done, and
    several connected processes share the others.

    Args:
        dataset: made by ``posewarper prepare``.
        out: the folder to write.
        split: ``train`` or ``val``.
        plan: file stem -> steps, as of :func:`plan_dataset`.
        raft: for the method ``raft``; left out: torchvision's weights, which may be downloaded.
        overwrite: begin anew, and replace what is there; None replaces results of other settings alone.
        progress: is told of the steps done.

    Raises:
        ConfigError, ModelError: as :func:`posewarper.paper.carrying.propagate_video`.
        LabelsError: if the plan names a video that the split does not have.
        OutputError: if ``out`` holds something else.
        Interrupted: on Ctrl-C; the next run skips the videos that are done.

    Warns:
        PosewarperWarning: if the warp head was never trained, which leaves labels where they are.
    """
    rules = rules or Rules()
    videos = _videos(dataset, split, plan)
    if method == "raft" and raft is None:
        # One machine may have the weights, and another not.
        raft = of_each(lambda: load_raft(device="cpu" if model is None else model.device))
    check_method(method, model, rules, raft)
    if method == "warper" and model is not None and "warp" not in model.spec.trained:
        text = "the warp head of this model was never trained: labels stay where they are"
        warnings.warn(text, PosewarperWarning, stacklevel=2)
    used = model if method in ("frame", "warper") else None
    steps = json.dumps({stem: [tuple(step) for step in plan[stem]] for stem in sorted(plan)})
    request = describe_request(
        dataset,
        split,
        used,
        method=method,
        raft=None if raft is None or method != "raft" else _sha256_of_raft(raft),
        plan=hashlib.sha256(steps.encode()).hexdigest(),
        rules=asdict(rules),
    )

    def make(stem: str, advance: Callable[[int], None]) -> InstanceTable:
        video = videos[stem]
        return propagate_video(
            used,
            dataset.table(video),
            plan[stem],
            dataset_frames(dataset, video),
            method=method,
            rules=rules,
            raft=raft,
            # As the download's labels would name it, by its own file.
            frame_name=lambda number: f"{video.folder}/{dataset.frame_path(video, number).name}",
            batch=batch,
            advance=advance,
        )

    sizes = {stem: len(plan[stem]) for stem in videos}
    folder = Path(out) / POSES
    claimed = claim(folder.parent, request, (POSES,), overwrite=overwrite, again=True)
    with held_by_first(folder.parent, claimed, begins=True):
        tables, reused = make_or_read(folder, sizes, make, "propagation", progress)
    frames = sum(int(table.is_labelled.sum()) for table in tables.values())
    return PropagationResult(
        folder,
        len(videos),
        frames,
        sum(sizes.values()) - frames,
        sum(table.n_instances for table in tables.values()),
        reused,
    )


def score_propagation(
    dataset: Dataset,
    folder: str | os.PathLike[str],
    *,
    split: str,
    plan: Plan,
    neck: str = "head_bottom",
) -> PoseTrackScore:
    """Compare propagated poses with the labels of the frames of their plan, labelled frames among them.

    Args:
        dataset: its labels of ``split`` are the ground truth.
        folder: ``PropagationResult.folder``.
        plan: the one that the poses were made with.
        neck: ``head_bottom`` takes the propagated neck as it is; ``shoulders`` puts it between the shoulders.

    Raises:
        LabelsError: if a video has no propagated poses, or an annotated person no head box.
    """
    truth, predicted = {}, {}
    for stem, video in _videos(dataset, split, plan).items():
        table = dataset.table(video)
        numbers = [step.number for step in plan[stem]]
        # Frames without anybody are not scored, so that leaving out their people leaves out the frames.
        truth[stem] = table.take(np.isin(table.frame_numbers[table.rows], numbers))
        predicted[stem] = read_posetrack18(Path(folder) / f"{stem}.json")
    return score_posetrack(truth, predicted, neck=neck)


def _videos(dataset: Dataset, split: str, plan: Plan) -> dict[str, DatasetVideo]:
    """Return the videos of a plan by file stem, in the order of the dataset."""
    videos = {video.file_stem: video for video in dataset.of_split(split) if video.file_stem in plan}
    strangers = sorted(set(plan) - set(videos))
    if strangers or not plan:
        raise LabelsError(
            f"the plan of propagation does not fit the split {split!r}",
            path=dataset.root,
            expected=f"videos of this split: {', '.join(v.file_stem for v in dataset.of_split(split)[:3])}",
            got=", ".join(strangers[:3]) or "no videos",
            fix="make the plan with plan_dataset, of the same split",
        )
    return videos


def _sha256_of_raft(raft: RAFT) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(raft.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
