"""Which frames of a dataset are filled from which labelled frames: the plans of the paper's experiments."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from posewarper.errors import ConfigError, LabelsError
from posewarper.instances import InstanceTable
from posewarper.posetrack.dataset import Dataset
from posewarper.posetrack.frame_selection import REACH, Step, longest_run, propagation_plan

PLANS = ("consecutive", "neighbours")


def consecutive_steps(table: InstanceTable, *, keep: Collection[int] | None = None) -> list[Step]:
    """Return the steps of the propagation experiment: a run of labelled frames, filled from every seventh.

    The rule is :func:`posewarper.posetrack.frame_selection.propagation_plan`, on the longest run of
    consecutive labelled frames. Where that is three frames or fewer there are no steps; the original stops.

    Args:
        table: the labels.
        keep: numbers of the labelled frames that may be used and filled; None for all.
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
    original fills it from both. No labelled frame is filled.

    Args:
        table: the labels.
        reach: how many frames to either side.
        keep: numbers of the frames that count as labelled; None for all that are.
        numbers: of the frames that there are; None for those of the table.

    Returns:
        The steps, labelled frame by labelled frame, rising.
    """
    labelled = _labelled(table, keep)
    there = set(table.frame_numbers.tolist() if numbers is None else numbers) - set(labelled)
    nearest: dict[int, Step] = {}
    for source in labelled:
        for delta in (*range(-reach, 0), *range(1, reach + 1)):
            known = nearest.get(source + delta)
            if source + delta in there and (known is None or abs(delta) < abs(known.delta)):
                nearest[source + delta] = Step(source + delta, source, delta)
    return sorted(nearest.values(), key=lambda step: (step.labelled, step.number))


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
        plan: ``consecutive`` (:func:`consecutive_steps`) or ``neighbours`` (:func:`neighbour_steps`, onto
            frames that can be read).
        selection: file stem -> numbers of the frames that count as labelled; other videos are left out. None
            for all videos and labels.
        reach: of ``neighbours``.

    Raises:
        ConfigError: if there is no such plan.
        LabelsError: if the selection names a video or a labelled frame that is not there, or no video has
            any step.
    """
    if plan not in PLANS:
        raise ConfigError(
            "unknown plan of propagation",
            expected=", ".join(PLANS),
            got=plan,
            mend="use one of the names expected",
        )
    videos = {video.file_stem: video for video in dataset.of_split(split)}
    strangers = sorted(set(selection or ()) - set(videos))
    if strangers:
        raise LabelsError(
            f"{len(strangers)} of the selected videos are not in the split {split!r}",
            path=dataset.root,
            expected=", ".join(list(videos)[:3]) or "videos",
            got=", ".join(strangers[:3]),
            mend="name file stems of this split",
        )
    steps: dict[str, list[Step]] = {}
    for stem in videos if selection is None else [stem for stem in videos if stem in selection]:
        keep, table = None if selection is None else selection[stem], dataset.table(videos[stem])
        if plan == "consecutive":
            steps[stem] = consecutive_steps(table, keep=keep)
        else:
            there = set(videos[stem].numbers) - dataset.missing(videos[stem])
            steps[stem] = neighbour_steps(table, reach=reach, keep=keep, numbers=there)
    found = {stem: own for stem, own in steps.items() if own}
    if not found:
        raise LabelsError(
            f"there is nothing to propagate in the {len(steps)} videos of the split {split!r}",
            path=dataset.root,
            expected="labelled frames"
            if plan == "neighbours"
            else f"a video with more than {REACH} labelled frames in a row",
            mend="name another split, selection or plan",
        )
    return found


def _labelled(table: InstanceTable, keep: Collection[int] | None) -> list[int]:
    labelled = np.unique(table.frame_numbers[table.is_labelled]).tolist()
    if keep is None:
        return labelled
    strangers = sorted(set(keep) - set(labelled))
    if strangers:
        raise LabelsError(
            f"frames of {table.video} are to count as labelled and are not",
            expected="numbers of labelled frames",
            got=strangers[:10],
            mend="select labelled frames only",
        )
    return sorted(set(keep))
