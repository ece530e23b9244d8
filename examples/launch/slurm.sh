#!/bin/bash
#SBATCH --job-name=grail
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:8
#SBATCH --time=04:00:00
# Usage: sbatch examples/launch/slurm.sh erase.yaml
# Of the file systems, only the run directory, the model's folder and the rows must be shared by the
# nodes. The same command goes on after a time limit.
set -euo pipefail
export CONFIG=$1
export MAIN=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun bash -c 'accelerate launch --config_file examples/launch/fsdp2.yaml \
    --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
    --num_processes "$((SLURM_NNODES * 8))" --main_process_ip "$MAIN" --main_process_port 29500 \
    -m grail run "$CONFIG"'
