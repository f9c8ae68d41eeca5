#!/bin/bash
# Features of a large data set on every host of a Cloud TPU pod slice, into one directory that all of them see.
#
#     TPU=my-pod ZONE=us-central2-b DATA=/mnt/photos OUT=/mnt/features bash scripts/launch/tpu-pod.sh
#
# The package has to be installed on the hosts: pip install 'catdog-jax[tpu,weights]'. Each host learns its share from JAX.
set -euo pipefail
: "${TPU:?the name of the pod}" "${ZONE:?its zone}" "${DATA:?the folder of photos}" "${OUT:?the feature cache to write}"

gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all --command \
  "ORT_DISABLE_TELEMETRY=1 catdog extract --data '$DATA' --out '$OUT' --distributed auto"
