"""The training of a recipe, on one process or many; a run that was stopped resumes exactly.

The order of the samples, the random crops and the global batches follow from the seed alone, not from where
it runs. The state on disk holds model, optimiser and place, so that a run that was killed ends with the
parameters of one that was not.
"""

from __future__ import annotations

import atexit
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate.utils import InitProcessGroupKwargs, broadcast
from torch import Tensor, nn

from posewarper.errors import ConfigError, Interrupted, ModelError, OutputError, first_sentence
from posewarper.files import naming, write_text
from posewarper.model.checkpoint import save_model, write_tensors
from posewarper.model.network import PoseWarper
from posewarper.model.runtime import resolve_device
from posewarper.model.warping import WarpHead
from posewarper.options import Recipe, TrainSettings
from posewarper.processes import is_connected, of_first, patient_group, world
from posewarper.reporting.network_pictures import write_debug_picture
from posewarper.runs import differences, duration, seen_in_time
from posewarper.structures import Progress, silent
from posewarper.training.batches import Batch, BatchLoader, EpochSampler, TrainingSet
from posewarper.training.steps import PoseStep, WarperStep, training_steps

_FORMAT = "posewarper training state"


@dataclass
class RunState:
    """Where a run stands; figures are of the validation, None before the first."""

    epoch: int = 0  # epochs that are done
    step: int = 0  # steps done of the epoch that has begun
    best: float | None = None  # highest figure so far
    best_epoch: int | None = None  # when it was reached
    figure: float | None = None  # the last one
    seconds: float = 0.0  # of work so far
    loss_sum: float = 0.0  # of the losses of the epoch that has begun


def load_state(path: Path) -> tuple[RunState, dict[str, Any]]:
    """Read a state; returns where the run stands, and ``recipe``, ``model`` and ``optimiser``.

    Raises:
        ModelError: if the file is damaged or no state.
    """
    fix = "remove the file, so that the run begins anew"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is damaged fails in any way
        raise ModelError(
            "cannot read this training state", path=path, got=first_sentence(error), fix=fix
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ModelError("this is no training state", path=path, fix=fix)
    return RunState(**content["state"]), content


class Journal:
    """Writes ``log.jsonl`` and TensorBoard's events into the folder of a run.

    Lines of lost work, later than the ``step`` (over all epochs) from which the run resumes, are removed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = folder / "log.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            write_text(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))
        self._handle = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, **values: Any) -> None:
        """Note values at a step (counted over all epochs)."""
        with naming(self._handle.name):
            self._handle.write(json.dumps({"step": step, **values}) + "\n")
            self._handle.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "epoch":
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish both files."""
        self._handle.close()
        self._board.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # cut off by a kill
        return float("inf")


_LOG_STEPS = 10
LAST, BEST, FINAL = "checkpoints/last.pt", "checkpoints/best.pt", "model.pt"
# What a step, or the difference between two processes' shares of a validation, may take. A machine that
# falls silent is given up after it.
_PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class TrainingResult:
    """The model as it is at the end, and what :class:`RunState` holds of its validation and its time."""

    model: PoseWarper
    best: float | None
    best_epoch: int | None
    figure: float | None
    seconds: float


def make_accelerator(device: str = "auto") -> accelerate.Accelerator:
    """Return the engine of this process, connected with all that were started together, or the only one.

    Raises:
        ConfigError: if the machine lacks the device, or cannot be connected with the others.
    """
    # Without a GPU accelerate has to be told, or each of torchrun's processes would be a run of its own.
    cpu = resolve_device(device).type == "cpu"
    # Precision is the recipe's own business: accelerate allows one a process, an experiment has several runs.
    patience = InitProcessGroupKwargs(timeout=_PATIENCE)
    engine = accelerate.Accelerator(mixed_precision="no", cpu=cpu, kwargs_handlers=[patience])
    if engine.num_processes != world():
        raise ConfigError(
            "this process cannot be connected with the others that were started with it",
            expected=f"{world()} processes (WORLD_SIZE) on CPUs or on GPUs with CUDA, each with RANK, "
            "LOCAL_RANK, MASTER_ADDR and MASTER_PORT",
            got=f"{engine.num_processes} on {engine.device}",
            fix="start them with torchrun, with --device cpu where there is no CUDA",
        )
    if is_connected():
        patient_group()  # all are here together
        atexit.register(_disconnect)
    return engine


def _disconnect() -> None:
    """Take the connections down before the interpreter goes: their threads must not outlive it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def learning_rate(settings: TrainSettings, epoch: int) -> float:
    """Return the rate of an epoch (from 0); each drop divides it by 10.

    With ``early_drops`` a drop at 10 takes effect after 9 epochs, as in the original, whose scheduler steps
    before the optimiser.
    """
    passed = sum(epoch >= drop - settings.early_drops for drop in settings.drops)
    return settings.learning_rate * 0.1**passed


def global_batch(settings: TrainSettings, world: int) -> int:
    """Return the samples of one step over all processes.

    Raises:
        ConfigError: if a global batch that was asked for cannot be split evenly.
    """
    if settings.batch_per_device is not None:
        return settings.batch_per_device * world * settings.accumulate
    assert settings.global_batch is not None
    if settings.global_batch % (world * settings.accumulate):
        raise ConfigError(
            "train.global_batch cannot be split evenly",
            expected=f"a multiple of {world} processes x {settings.accumulate} accumulated batches",
            got=settings.global_batch,
            fix="change train.global_batch, train.accumulate or the number of processes",
        )
    return settings.global_batch


def request_of(recipe: Recipe, batch: int) -> dict[str, Any]:
    """Return what decides on the result: the global batch does; how it is cut, and where it runs, do not."""
    settings = recipe.model_dump(mode="json")
    for name in ("workers", "checkpoint_steps", "batch_per_device", "global_batch", "accumulate"):
        del settings["train"][name]
    # Runs of earlier versions, which did not have these, go on.
    for name, usual in (("neck", "upsampling"), ("backbone_weights", "none")):
        if settings["model"][name] == usual:
            del settings["model"][name]
    return {**settings, "global_batch": batch}


@dataclass(eq=False)
class Run:
    """One training run: everything that the loop needs, built once.

    Args:
        recipe: the settings.
        model: what is trained, in place.
        training_set: the samples.
        out: folder of the run.
        engine: of this process.
        teacher: a trained warp head that the warper is to match as well.
        validate: model -> figure, higher is better; called on every process with the model in evaluation
            mode. None for no validation.
        debug_images: pictures are drawn of so many batches of each epoch.
        progress: is told after every step.
        tell: is given a line of text after every epoch.
    """

    recipe: Recipe
    model: PoseWarper
    training_set: TrainingSet
    out: Path
    engine: accelerate.Accelerator
    _: KW_ONLY
    teacher: WarpHead | None = None
    validate: Callable[[PoseWarper], float] | None = None
    debug_images: int = 0
    progress: Progress = silent
    tell: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        settings, engine, model = self.recipe.train, self.engine, self.model
        self.batch, self.samples = global_batch(settings, engine.num_processes), len(self.training_set)
        self.sampler = EpochSampler(
            self.samples,
            self.batch,
            rank=engine.process_index,
            world=engine.num_processes,
            seed=settings.seed,
            accumulate=settings.accumulate,
        )
        self.loader = BatchLoader(
            self.training_set, self.sampler, workers=settings.workers, pin_memory=engine.device.type == "cuda"
        )
        teacher = None if self.teacher is None else self.teacher.to(engine.device)
        model.to(engine.device)
        self.step = (
            PoseStep(model, settings.batch_norm)
            if settings.stage == "pose"
            else WarperStep(model, settings.batch_norm, teacher=teacher)
        )
        trained = [p for p in self.step.parameters() if p.requires_grad]
        # The paper's Adam gets the learning rate only; the weight decay of its files has no effect.
        self.optimiser = torch.optim.Adam(trained, lr=settings.learning_rate)
        self.wrapped: nn.Module = engine.prepare_model(self.step)
        self.state = RunState()
        self._kept = (0, 0)  # epochs and steps that are on disk

    def restore(self) -> None:
        """Take up the state on disk, if there is one.

        Raises:
            OutputError: if the state is of a run with other settings or data.
        """
        path = self.out / LAST
        # What one process finds all go by: another machine may not see it yet.
        if not of_first(path.is_file):
            return
        seen_in_time(path.is_file)
        state, content = load_state(path)
        newest = of_first(lambda: (state.epoch, state.step))
        while (state.epoch, state.step) != newest:
            if not seen_in_time(lambda: load_state(path)[0].step == newest[1]):
                raise OutputError(
                    "another process of this run reads another state",
                    path=path,
                    expected=f"{newest[0]} epochs and {newest[1]} steps",
                    got=f"{state.epoch} epochs and {state.step} steps",
                    fix="name an --out that all machines share",
                )
            state, content = load_state(path)
        # Of other data there may be other samples, and older versions wrote their settings here alone.
        if content["recipe"] != self._request:
            raise OutputError(
                "this run cannot be resumed: it was begun with other settings or data",
                path=self.out,
                got=differences(content["recipe"], self._request),
                fix="give the same recipe, or another --out",
            )
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.state, self._kept = state, (state.epoch, state.step)
        self.tell(f"resuming after {state.epoch} of {self.recipe.train.epochs} epochs and {state.step} steps")

    @property
    def _request(self) -> dict[str, Any]:
        return {**request_of(self.recipe, self.batch), "samples": self.samples}

    def train(self) -> TrainingResult:
        """Train to the end.

        Raises:
            Interrupted: on Ctrl-C; what was done is kept.
        """
        settings, state = self.recipe.train, self.state
        begun = time.monotonic() - state.seconds
        journal = Journal(self.out, self._steps_done()) if self.engine.is_main_process else None
        try:
            while state.epoch < settings.epochs:
                self._train_epoch(begun, journal)
                self._finish_epoch(begun, journal)
        except KeyboardInterrupt:
            epochs, steps = self._kept
            raise Interrupted(
                f"{epochs} of {settings.epochs} epochs and {steps} steps are kept; the same command with "
                "--resume resumes there"
            ) from None
        finally:
            self.loader.close()
            if journal is not None:
                journal.close()
        self._save_model(FINAL)
        self.engine.wait_for_everyone()
        return TrainingResult(self.model.eval(), state.best, state.best_epoch, state.figure, state.seconds)

    def _steps_done(self) -> int:
        return self.state.epoch * self.sampler.steps + self.state.step

    def _train_epoch(self, begun: float, journal: Journal | None) -> None:
        settings, state = self.recipe.train, self.state
        lr = learning_rate(settings, state.epoch)
        self.sampler.set_epoch(state.epoch, state.step)
        self.step.set_mode()
        clock, begun_at, steps = time.monotonic(), state.step, settings.epochs * self.sampler.steps
        groups = zip(*[iter(self.loader)] * settings.accumulate, strict=True)
        losses = (partial(self._learn, batches) for batches in groups)
        for step, total in training_steps(self.optimiser, losses, lambda step: lr, first=state.step):
            loss = float(self.engine.reduce(total, reduction="mean"))  # type: ignore[arg-type]
            state.step = step
            state.loss_sum += loss
            done = self._steps_done()
            rate = (step - begun_at) * self.batch / max(time.monotonic() - clock, 1e-9)
            self.progress(f"training\tloss {loss:.5f}, {rate:.0f} samples/s", done, steps)
            if journal is not None and (done % _LOG_STEPS == 0 or step == self.sampler.steps):
                told = {"loss": loss, "learning_rate": lr, "samples_per_second": round(rate, 1)}
                journal.write(done, epoch=state.epoch + 1, **told)
            if step % settings.checkpoint_steps == 0 and step < self.sampler.steps:
                self._save(begun)

    def _learn(self, batches: Sequence[Batch]) -> Tensor:
        """Add the gradients of one step's batches; returns their mean loss on this process."""
        total = torch.zeros((), device=self.engine.device)
        halved = self.recipe.train.precision == "bfloat16"
        for n, batch in enumerate(batches):
            moved = {key: value.to(self.engine.device, non_blocking=True) for key, value in batch.items()}
            if n == 0 and self.state.step < self.debug_images and self.engine.is_main_process:
                self._draw(moved)
            # Processes exchange gradients with the last of the accumulated batches only.
            is_last = n == len(batches) - 1
            with nullcontext() if is_last else self.engine.no_sync(self.wrapped):
                with torch.autocast(self.engine.device.type, torch.bfloat16, enabled=halved):
                    loss = self.wrapped(moved) / len(batches)
                self.engine.backward(loss)
            total += loss.detach()
        return total

    def _draw(self, batch: Batch) -> None:
        # In evaluation mode, so that looking changes no running statistics.
        self.model.eval()
        with torch.no_grad():
            predicted = self.step.predict(batch).float()
        self.step.set_mode()
        path = self.out / "debug" / f"epoch{self.state.epoch + 1:03}_step{self.state.step:05}.png"
        parts = (batch["images"], batch["target"], predicted, batch["weights"])
        images, target, seen, weights = (part.cpu().numpy() for part in parts)
        write_debug_picture(path, images, target, seen, weights, self.model.spec.skeleton)

    def _finish_epoch(self, begun: float, journal: Journal | None) -> None:
        settings, state = self.recipe.train, self.state
        for buffer in self.model.buffers():  # each process has gone on with statistics of its own
            broadcast(buffer)
        loss = state.loss_sum / self.sampler.steps
        state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
        done, said, is_last = self._steps_done(), "", state.epoch == settings.epochs
        if self.validate is not None and (state.epoch % settings.validate_epochs == 0 or is_last):
            self.model.eval()
            state.figure = figure = self.validate(self.model)
            said = f", validation {figure:.1f}"
            if journal is not None:
                journal.write(done, epoch=state.epoch, validation=figure)
            if state.best is None or figure > state.best:
                state.best, state.best_epoch = figure, state.epoch
                self._save_model(BEST)
        self._save(begun)
        left = (settings.epochs - state.epoch) * state.seconds / state.epoch
        self.tell(f"epoch {state.epoch}/{settings.epochs}: loss {loss:.5f}{said}, {duration(left)} left")

    def _save_model(self, name: str) -> None:
        self.model.record("warp" if self.recipe.train.stage == "warper" else "pose", self._steps_done())
        if self.engine.is_main_process:
            save_model(self.out / name, self.model)

    def _save(self, begun: float) -> None:
        self.state.seconds = time.monotonic() - begun
        if self.engine.is_main_process:
            content = {
                "format": _FORMAT,
                "state": asdict(self.state),
                "recipe": self._request,
                "model": {name: value.detach().cpu() for name, value in self.model.state_dict().items()},
                "optimiser": self.optimiser.state_dict(),
            }
            write_tensors(self.out / LAST, content)
        self._kept = self.state.epoch, self.state.step
        self.engine.wait_for_everyone()
