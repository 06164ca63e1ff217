"""New models for one's own clips: what they are made of, and what they say of themselves."""

from __future__ import annotations

from dataclasses import replace

from posewarper.config import FitConfig, NetworkConfig
from posewarper.model.backbone_weights import BackboneWeights
from posewarper.model.network import ModelSpec, PoseWarper
from posewarper.structures import Labels
from posewarper.version import __version__


def build_clip_model(
    labels: Labels,
    network: NetworkConfig,
    config: FitConfig,
    seed: int,
    start: BackboneWeights | None,
) -> PoseWarper:
    """Build the network that a clip's labels ask for, untrained.

    Args:
        labels: name the keypoints.
        network: the architecture.
        config: how it is going to be trained, for the provenance.
        seed: likewise; it is the caller who seeds.
        start: weights that the backbone starts from; None for random ones. Crops are then normalised as they
            were for these.
    """
    spec = ModelSpec(
        backbone=network.backbone,
        skeleton=labels.skeleton,
        crop_size=network.crop_size,
        sigma=config.sigma,
        head_width=network.head_width,
        head_blocks=network.head_blocks,
        head_dilations=network.head_dilations,
        targets="exact",
        batch_norm="batch statistics in training; evaluation mode in the pose network that the warper sees",
        provenance={
            "posewarper": __version__,
            "video": labels.video,
            "labelled_frames": len(labels.labelled_frames),
            "seed": seed,
            "config": config.model_dump(),
        },
    )
    if start is None:
        return PoseWarper(spec)
    begun = {**spec.provenance, "backbone_weights": {"source": start.source, "sha256": start.sha256}}
    model = PoseWarper(replace(spec, mean=start.mean, std=start.std, provenance=begun))
    start.load_into(model.backbone)
    return model
