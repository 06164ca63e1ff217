"""What more processes bring to a training: measured here, and on paper for many GPUs.

    python benchmarks/scaling.py [--quick] [--machines] [--stage pose|warper] [--step-seconds S] [--json FILE]

Measured: the training loop itself with 1 process and with 2, started by torchrun on this machine, each with a
batch of its own (16 crops of 128 x 96, hrnet_w18_small, gloo), on samples that are there already; with
`--machines` also with one process on each of two machines made of network namespaces (Linux, root). Figures
are of the second epoch. Seconds by the clock mean little on a machine that is busy, so the load is printed
beside them; seconds of the processor count the work alone, with that of the exchange of gradients, and no
waiting. Bytes are those that the processes exchange, counted.

On paper: what the exchange of gradients costs for the paper's network (HRNet-W48, crops 384 x 288). The bytes
of a step are counted: the trained parameters x 4. The computing time of a step is yours to measure on one GPU
(`benchmarks/gpu.py`, or samples_per_second in log.jsonl) and to give with `--step-seconds`; without it one is
assumed. The speeds of the links are assumed and named. A ring all-reduce of B bytes over n GPUs takes

    2 (n - 1) / n x B / speed of the slowest link  +  2 (n - 1) x latency

seconds. Gradients are exchanged while others are still computed: the two efficiencies are those with nothing
of it hidden and with all of it. Reading, cutting and waiting for the slowest process are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from input_pipeline import make_frames
from training_speed import STAGES, build

STEPS = 8
# Assumed: bytes a second that one GPU sends in one direction, and seconds until a message begins to arrive.
LINKS = {
    "NVLink within a machine": (100e9, 5e-6),
    "PCIe 4.0 within a machine": (16e9, 1e-5),
    "100 Gbit/s between machines": (10e9, 2e-5),
    "25 Gbit/s between machines": (2.5e9, 3e-5),
    "10 Gbit/s between machines": (1e9, 5e-5),
}
ASSUMED_STEP = 0.25  # seconds of one GPU for a batch of 16
MACHINE_GPUS = 8
CASES = (
    (8, "NVLink within a machine"),
    (8, "PCIe 4.0 within a machine"),
    (64, "100 Gbit/s between machines"),
    (64, "25 Gbit/s between machines"),
    (64, "10 Gbit/s between machines"),
)


def ring_seconds(n: int, n_bytes: float, speed: float, latency: float) -> float:
    """Return the seconds of a ring all-reduce over n GPUs."""
    return 2 * (n - 1) / n * n_bytes / speed + 2 * (n - 1) * latency


def work(stage: str, steps: int, report: Path) -> None:
    """Be one process of a measured training; the first writes what was measured."""
    import torch
    import torch.distributed as dist
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    from posewarper.training.engine import make_accelerator

    torch.set_num_threads(1)  # so that processes do not take each other's cores
    seen: list[tuple[float, float]] = []
    engine = make_accelerator("cpu")
    rank, world = engine.process_index, engine.num_processes
    with tempfile.TemporaryDirectory() as folder:
        video = make_frames(Path(folder), 60)["JPEG files"]
        run = build(
            stage,
            "cpu",
            None,
            video,
            16 * world * steps,
            Path(folder),
            lambda what, done, total: seen.append((time.perf_counter(), time.process_time())),
        )
        trained = sum(p.numel() * p.element_size() for p in run.step.parameters() if p.requires_grad)
        sent = 0
        if world > 1:

            def counted(state, bucket):  # with annotations torch would want its own
                nonlocal sent
                sent += bucket.buffer().numel() * bucket.buffer().element_size()
                return default_hooks.allreduce_hook(dist.group.WORLD, bucket)

            run.wrapped.register_comm_hook(None, counted)  # type: ignore[operator]
        run.train()
    (begun, begun_cpu), (ended, ended_cpu) = seen[steps], seen[-1]
    mine = [(ended - begun) / (steps - 1), (ended_cpu - begun_cpu) / (steps - 1), sent / (2 * steps)]
    everyone = [mine]
    if world > 1:
        everyone = [None] * world  # type: ignore[list-item]
        dist.all_gather_object(everyone, mine)
    if rank == 0:
        facts = {
            "processes": world,
            "step_seconds": max(one[0] for one in everyone),
            "processor_seconds_per_step": sum(one[1] for one in everyone) / world,
            "gradient_bytes": trained,
            "exchanged_bytes": everyone[0][2],
        }
        report.write_text(json.dumps(facts), encoding="utf-8")


def measure(stage: str, steps: int, processes: int, machines: bool) -> dict[str, Any]:
    """Start the processes and return what the first has written."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        own = [str(Path(__file__)), "--worker", str(report), "--stage", stage, "--steps", str(steps)]
        if machines:
            sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))
            from two_machines import torchrun, two_machines

            with two_machines() as both:
                said = [Path(folder, f"{n}.txt") for n in range(2)]
                command = torchrun(own, run="scaling")
                started = [machine.start(command, path) for machine, path in zip(both, said, strict=True)]
                codes = [one.wait() for one in started]
                if any(codes):
                    raise SystemExit("".join(path.read_text() for path in said))
        else:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
            subprocess.run([*command, "--nproc-per-node", str(processes), *own], env=environment, check=True)
        return json.loads(report.read_text(encoding="utf-8"))


def show_measured(stage: str, steps: int, machines: bool) -> list[dict[str, Any]]:
    """Measure, print and return the rows."""
    cases = [(1, False, "1 process"), (2, False, "2 processes, one machine")]
    cases += [(2, True, "2 processes, two machines of namespaces")] if machines else []
    rows: list[dict[str, Any]] = []
    print(f"MEASURED here, stage {stage}, 16 crops a process and step, {steps - 1} steps, one thread each")
    print("samples/s  efficiency  processor s/sample  efficiency  exchanged MB/step")
    for processes, apart, name in cases:
        facts = measure(stage, steps, processes, apart)
        n, load = facts["processes"], os.getloadavg()[0]
        rate, cost = 16 * n / facts["step_seconds"], facts["processor_seconds_per_step"] / 16
        base = rows[0] if rows else {"samples_per_second": rate, "processor_seconds_per_sample": cost}
        row = {
            "name": name,
            "samples_per_second": rate,
            "efficiency": rate / n / base["samples_per_second"],
            "processor_seconds_per_sample": cost,
            "processor_efficiency": base["processor_seconds_per_sample"] / cost,
            "load": load,
            **facts,
        }
        rows.append(row)
        print(
            f"{rate:9.1f} {row['efficiency']:10.0%} {cost:19.4f} {row['processor_efficiency']:11.0%} "
            f"{facts['exchanged_bytes'] / 1e6:18.1f}  {name}; load {load:.1f} on {os.cpu_count()} cores"
        )
    return rows


def gradient_bytes(stage: str) -> int:
    """Return the bytes of the parameters that the paper's network trains in a stage."""
    import torch

    from posewarper.model.network import ModelSpec, PoseWarper
    from posewarper.skeletons import POSETRACK
    from posewarper.training.steps import PoseStep, WarperStep

    with torch.device("meta"):
        model = PoseWarper(ModelSpec("hrnet_w48", POSETRACK, (384, 288), 3.0))
    step = (PoseStep if stage == "pose" else WarperStep)(model, "paper")
    return sum(p.numel() * 4 for p in step.parameters() if p.requires_grad)


def show_paper(step_seconds: float | None) -> list[dict[str, Any]]:
    """Print and return what the formula says of many GPUs."""
    rows = []
    for stage in STAGES:
        n_bytes, step = gradient_bytes(stage), step_seconds or ASSUMED_STEP
        source = "given with --step-seconds" if step_seconds else "ASSUMED, nobody has measured it"
        print(f"\nON PAPER, stage {stage}, HRNet-W48 at 384 x 288")
        print(f"  counted:  {n_bytes / 1e6:.1f} MB of gradients a step ({n_bytes // 4} parameters x 4)")
        print(f"  computing {step:.3f} s a step and GPU: {source}")
        print("  links: ASSUMED, as the table names them; ring all-reduce by the formula above")
        print("  GPUs   exchange s   efficiency: nothing hidden   all hidden   slowest link")
        for n, link in CASES:
            seconds = ring_seconds(n, n_bytes, *LINKS[link])
            none, all_ = step / (step + seconds), step / max(step, seconds)
            speed = LINKS[link][0] / 1e9
            machines = -(-n // MACHINE_GPUS)
            where = f"{link}, {speed:g} GB/s" + (f", {machines} machines" if machines > 1 else "")
            print(f"  {n:4} {seconds:12.4f} {none:28.0%} {all_:12.0%}   {where}")
            rows.append(
                {
                    "stage": stage,
                    "gpus": n,
                    "link": link,
                    "exchange_seconds": seconds,
                    "none": none,
                    "all": all_,
                }
            )
    return rows


def main() -> None:
    """Measure, compute, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--machines", action="store_true", help="also with two machines of namespaces")
    parser.add_argument("--stage", choices=STAGES, default="pose")
    parser.add_argument("--steps", type=int, default=STEPS, help="of an epoch")
    parser.add_argument("--step-seconds", type=float, help="measured computing time of a step on one GPU")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    steps = 3 if options.quick else options.steps
    if options.worker is not None:
        work(options.stage, options.steps, options.worker)
        return
    measured = show_measured(options.stage, steps, options.machines)
    on_paper = show_paper(options.step_seconds)
    if options.json is not None:
        report = {"measured": measured, "on_paper": on_paper, "links": LINKS}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
