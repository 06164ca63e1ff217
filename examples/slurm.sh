#!/usr/bin/env bash
# Runs a command of posewarper on several machines under SLURM: one torchrun on each, one process for each GPU.
#
#   sbatch examples/slurm.sh train posetrack17_warper.yaml data.dataset=/shared/posetrack17 \
#       model.start=/shared/pose.pt --out /shared/runs/warper --resume
#   sbatch examples/slurm.sh predict /shared/videos.csv --model /shared/model.pt --out /shared/poses
#
# Every path has to lie in a folder that all machines share. docs/many_machines.md says what happens when one
# is lost. Options of sbatch, such as --nodes=4 or --partition, go before the name of this script. Variables:
#
#   PYTHON     the interpreter of the environment that posewarper is installed in; python3 if not set
#   PROCESSES  on each machine; one for each GPU, or one where there is none, if not set
#   RESTARTS   how often torchrun starts all processes anew after one has failed; 0 if not set. For a training
#              give --resume as well. With input that is at fault it only fails as often.
#   NODES      the fewest and the most machines, as torchrun takes them (2:4); all of the job if not set
#
#SBATCH --job-name=posewarper
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=posewarper-%j.log
set -euo pipefail

first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
port="$((20000 + SLURM_JOB_ID % 10000))"
processes="${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}"
if [ -z "${SLURM_GPUS_ON_NODE:-}" ]; then
    export ACCELERATE_USE_CPU=true
fi

# Of a job that SLURM has begun anew the name is another, so that nobody waits for processes that are gone.
exec srun "${PYTHON:-python3}" -m torch.distributed.run \
    --nnodes="${NODES:-$SLURM_JOB_NUM_NODES}" \
    --nproc-per-node="$processes" \
    --max-restarts="${RESTARTS:-0}" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="$first:$port" \
    --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    -m posewarper "$@"
