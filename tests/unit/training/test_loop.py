"""The training loop: it converges, counts, and keeps what Ctrl-C leaves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from posewarper.structures import silent
from posewarper.training.own_clip import Schedule, train

CENTRE = torch.tensor([3.0, -2.0])


def far_away() -> nn.Parameter:
    return nn.Parameter(torch.tensor([5.0, 1.0]))


def quadratic(parameter: nn.Parameter):
    return lambda step: ((parameter - CENTRE) ** 2).sum()


def run(parameters, loss_at, *, iterations=200, progress=silent, share=lambda step: 1.0, enough=None):
    return train(
        parameters,
        lambda step: (loss_at(step), share(step)),
        Schedule(iterations, 0.1, enough),
        stage="a stage",
        progress=progress,
    )


def test_it_finds_the_minimum_of_a_quadratic():
    parameter = far_away()
    assert run(iter([parameter]), quadratic(parameter)) == (200, 200, False)
    torch.testing.assert_close(parameter.detach(), CENTRE, atol=0.05, rtol=0)


def test_steps_grow_at_the_start_and_fade_out():
    parameter = far_away()
    places = []

    def downhill(step: int) -> torch.Tensor:
        places.append(parameter.detach().clone())
        return parameter.sum()

    run([parameter], downhill, iterations=100)
    steps = torch.stack([*places, parameter.detach()]).diff(dim=0)[:, 0].abs()
    assert steps[0] < 0.5 * steps.max()
    assert steps[-1] < 0.05 * steps.max()
    assert steps.argmax() < 30
    assert steps.max() == pytest.approx(0.1, rel=0.1)


def test_progress_is_told_of_every_iteration():
    parameter, told, asked = far_away(), [], []

    def loss_at(step: int) -> torch.Tensor:
        asked.append(step)
        return (parameter**2).sum()

    run([parameter], loss_at, iterations=5, progress=lambda *what: told.append(what))
    assert asked == [0, 1, 2, 3, 4]
    assert told == [("a stage", n, 5) for n in (1, 2, 3, 4, 5)]


def test_ctrl_c_keeps_what_was_done():
    parameter, seen = far_away(), []

    def loss_at(step: int) -> torch.Tensor:
        seen.append(parameter.detach().clone())
        if step == 4:
            raise KeyboardInterrupt
        return ((parameter - CENTRE) ** 2).sum()

    assert run([parameter], loss_at) == (4, 200, True)
    torch.testing.assert_close(parameter.detach(), seen[4])
    assert (seen[4] != seen[0]).all()


def test_ctrl_c_in_the_progress_bar_counts_the_iteration():
    parameter = far_away()

    def stop(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    assert run([parameter], quadratic(parameter), progress=stop) == (3, 200, True)


def test_other_failures_are_not_swallowed():
    def broken(step: int) -> torch.Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run([far_away()], broken)


def test_frozen_parameters_and_a_budget_of_0_change_nothing():
    free, frozen = far_away(), far_away().requires_grad_(False)
    run([free, frozen], lambda step: (free * frozen).sum(), iterations=3)
    assert torch.equal(frozen, far_away())
    assert not torch.equal(free, far_away())
    untouched = far_away()
    assert run([untouched], quadratic(untouched), iterations=0) == (0, 0, False)
    assert torch.equal(untouched, far_away())


def test_one_huge_gradient_does_not_undo_the_rest():
    def after(height: float) -> torch.Tensor:
        parameter = far_away()

        def loss_at(step: int) -> torch.Tensor:
            return ((parameter - CENTRE) ** 2).sum() * (height if step == 30 else 1.0)

        run([parameter], loss_at, iterations=60)
        return parameter.detach()

    torch.testing.assert_close(after(1e6), after(1.0), atol=0.3, rtol=0)


def test_a_plateau_ends_when_enough_is_learned():
    rates = Schedule(100, 1.0, enough=0.2)
    # Ten batches in a row must be good; then half as many again fade out.
    done, total, _ = run([far_away()], lambda step: far_away().sum(), iterations=100, enough=0.2)
    assert (done, total) == (100, 100)
    parameter = far_away()
    learned = run(
        [parameter],
        lambda step: (parameter**2).sum(),
        iterations=100,
        enough=0.2,
        share=lambda step: 1.0 if step < 20 else 0.1,
    )
    # The share over ten batches, two of them bad, is 0.28; with one it is 0.19.
    assert learned == (43, 43, False)
    assert rates.begin_of_fall(29, [1.0] + [0.1] * 9) == 29
    assert rates.begin_of_fall(28, [1.0] * 2 + [0.1] * 8) is None
    assert rates.begin_of_fall(5, [0.1] * 5) is None


def test_a_plateau_ends_in_time_for_the_fall():
    rates = Schedule(90, 1.0, enough=0.2)
    assert rates.begin_of_fall(59, [1.0] * 10) is None
    assert rates.begin_of_fall(60, [1.0] * 10) == 60
    assert rates.fall(60) == 30
    assert rates.rate(59, 60) == 1.0
    assert rates.rate(60, 60) == 1.0
    assert rates.rate(75, 60) == pytest.approx(0.5)
    assert rates.rate(89, 60) < 0.01
    for iterations in range(1, 12):
        short = Schedule(iterations, 1.0, enough=0.2)
        begin = next(n for n in range(1, 12) if short.begin_of_fall(n, [1.0] * 10))
        assert begin + short.fall(begin) == iterations
