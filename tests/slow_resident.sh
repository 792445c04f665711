#!/usr/bin/env bash
# 200 mixed requests to one pool of 4 CPU ranks: every answer right, loaded once, no growing memory; the result is
# tests/results/resident.json.
set -euo pipefail
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
cd "$root"
ATELIER_TEST_RESULT=$root/tests/results/resident.json \
  "${ATELIER_BUILD_FOLDER:-$root/build/cpu}/src/cluster_test" --gtest_brief=1 --gtest_filter='SlowResident*'
