"""Settings, each with its default and its limits. Unknown names are errors with the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posewarper.errors import ConfigError


class Settings(BaseModel):
    """A frozen group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Build the settings from plain values.

        Raises:
            ConfigError: if a name is unknown (with the nearest known one) or a value is out of its limits.
        """
        for name in values:
            if name not in cls.model_fields:
                near = difflib.get_close_matches(name, cls.model_fields, n=1)
                raise ConfigError(
                    f"unknown setting {name!r}",
                    expected=", ".join(cls.model_fields),
                    got=name,
                    mend=f"did you mean {near[0]!r}?" if near else "use one of the names expected",
                )
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"setting {'.'.join(map(str, first['loc']))} has an impossible value",
                expected=first["msg"],
                got=first["input"],
                mend="give a value within the limits",
            ) from error


class NetworkConfig(Settings):
    """Architecture of a model for one's own clips; the paper's is hrnet_w48 with 20 blocks of 128."""

    backbone: str = "hrnet_w18_small"
    backbone_weights: str = Field(
        default="none",
        description="to start from: none (random), imagenet (timm's own), or a file of weights",
    )
    crop_size: tuple[int, int] = Field(default=(192, 192), description="(height, width), multiples of 32")
    head_width: int = Field(default=32, ge=1)
    head_blocks: int = Field(default=4, ge=1)
    # The paper adds 18 and 24, which on heatmaps of 48 pixels reach outside; see docs/experiments.md.
    head_dilations: tuple[int, ...] = (3, 6, 12)


class FitConfig(Settings):
    """How a model is fitted to a clip. Budgets are iterations, never seconds."""

    pose_iterations: int = Field(default=250, ge=0)
    pseudo_iterations: int = Field(
        default=120, ge=0, description="on labels and propagated poses; 0 for none"
    )
    warp_iterations: int = Field(default=150, ge=0)
    pose_batch: int = Field(default=16, ge=2)
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
    "best": FitConfig(pose_iterations=900, pseudo_iterations=400, warp_iterations=500),
}


def effort_config(effort: str) -> FitConfig:
    """Return the settings of an effort by name.

    Raises:
        ConfigError: if there is no such effort.
    """
    if effort not in EFFORTS:
        raise ConfigError(
            "unknown effort", expected=", ".join(EFFORTS), got=effort, mend="use one of the names expected"
        )
    return EFFORTS[effort]
