#!/usr/bin/env bash
# What cargo runs in place of rustc for this package: the compiler with coverage counters, save for the build script.
set -euo pipefail
case " $* " in
*" --crate-name build_script_build "*) exec "$@" ;;
# The relocation lets the counters live in the mapped profile: see %c in coverage.sh.
*) exec "$@" -C instrument-coverage -C llvm-args=-runtime-counter-relocation ;;
esac
