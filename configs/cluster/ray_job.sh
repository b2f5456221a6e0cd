#!/bin/sh
# One build as a job of a Ray cluster that runs already, from any machine that reaches its dashboard (pip install "ray[default]"):
#   RAY_ADDRESS=http://HEAD:8265 configs/cluster/ray_job.sh s3://BUCKET/stills s3://BUCKET/clips [key=value ...]
# Not run here. The driver runs on the head, so it is its view of SOURCE and OUT that all hosts are held to.
exec ray job submit --no-wait -- stillreel animate "$@" ray=auto
