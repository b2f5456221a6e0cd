#!/bin/bash
# One build on a SLURM cluster:   sbatch configs/cluster/slurm.sh SOURCE OUT [key=value ...]
# SOURCE and OUT are on a file system of all nodes. Exit 75 puts the job back into the queue; the next run goes on.
#SBATCH --job-name=stillreel
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -u
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent ahostsv4 "$head" | awk 'NR == 1 {print $1}'):6379
# Nobody else on these nodes may use this Ray.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_USAGE_STATS_ENABLED=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=8 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# `symmetric-run` starts Ray on each node, runs the command on the first, and stops Ray on all.
srun --kill-on-bad-exit=1 ray symmetric-run --address "$address" --min-nodes "$SLURM_NNODES" \
	--num-cpus="$SLURM_CPUS_PER_TASK" -- stillreel animate "$@" "ray=$address" &
step=$!
trap 'kill -TERM $step' TERM
wait $step || code=$?
wait $step 2>/dev/null
# `symmetric-run` says 0 also where its nodes did not come up.
case $2 in *://*) ;; *) [ "${code:-0}" != 0 ] || [ -f "$2/manifest.json" ] || code=75 ;; esac
if [ "${code:-0}" = 75 ] || [ "${code:-0}" = 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "${code:-0}"
