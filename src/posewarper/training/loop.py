"""One readable training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from posewarper.structures import Progress

# Largest norm of the gradient; a single odd batch must not undo what was learned.
_CLIP = 1.0


def train(
    parameters: Iterable[nn.Parameter],
    loss_at: Callable[[int], Tensor],
    *,
    iterations: int,
    learning_rate: float,
    stage: str,
    progress: Progress,
) -> tuple[int, bool]:
    """Minimise a loss with AdamW under a cosine schedule with a short warm-up.

    Args:
        parameters: what is trained.
        loss_at: iteration -> the loss of that iteration's batch.
        iterations: the budget.
        learning_rate: the highest one.
        stage: name for the progress bar.
        progress: is told after every iteration.

    Returns:
        How many iterations were done, and whether Ctrl-C ended them early.
    """
    trained = [p for p in parameters if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=1e-4)
    warm_up = max(1, min(20, iterations // 10))

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, iterations - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    done = 0
    try:
        for step in range(iterations):
            loss = loss_at(step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, _CLIP)
            optimiser.step()
            schedule.step()
            done = step + 1
            progress(stage, done, iterations)
    except KeyboardInterrupt:
        return done, True
    return done, False
