#!/bin/sh
# Retrain once. Exit code 0: published, or nothing to publish. Anything else is worth an alarm.
set -u
segue retrain "${1:?usage: retrain.sh RECIPE}" --json
code=$?
case $code in
  0) echo "published" >&2 ;;
  3) echo "rejected: the champion stays; the page of the verdict says why" >&2; code=0 ;;
  *) echo "failed with exit code $code; the same command resumes after the last finished stage" >&2 ;;
esac
exit $code
