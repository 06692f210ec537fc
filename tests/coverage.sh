#!/usr/bin/env bash
# Measures which lines of src/ the tests run, prints a table, and fails when the core is below its bar.
#
#   tests/coverage.sh [more arguments for `cargo test`, such as -- store::]
#
# Needs what the tests need. All it makes is under target/: the LLVM tools in target/llvm-<major>, the rest in
# target/coverage (lcov.info, and html/index.html with every line).
#
# The lines are counted by the compiler's own instrumentation. Servers that a test starts count too, and those that it
# kills: their counters live in a mapped file, not in memory that is written out at exit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
out=$root/target/coverage
source tests/coverage/llvm.sh

find_llvm

# The dependencies are the ones in target/, compiled as always: the wrapper instruments only this package, and cargo
# keeps what a wrapper compiled apart. The instrumented program lands in target/coverage, not over target/debug/runlane.
export RUSTC_WORKSPACE_WRAPPER=$root/tests/coverage/rustc.sh
export CARGO_BUILD_BUILD_DIR=$root/target CARGO_TARGET_DIR=$out
# Incremental compilation is left out: the coverage map would be stitched from several compilations.
export CARGO_INCREMENTAL=0

rm -rf "$out/profiles"
mkdir -p "$out/profiles"
# %m: one file for each program, which its processes share; %c: mapped, so that SIGKILL loses no count.
export LLVM_PROFILE_FILE=$out/profiles/%m%c.profraw

# The programs themselves have no unit tests; --test builds them all the same, for the tests to start.
tests=(--locked --all-features --lib --test '*')
cargo test "${tests[@]}" --no-run --message-format=json-render-diagnostics "$@" >"$out/build.json"
mapfile -t programs < <(python3 tests/coverage/table.py programs "$out/build.json")

# The figures of a failing run still say where tests are missing: print them, and fail at the end.
failed=0
cargo test "${tests[@]}" --no-fail-fast "$@" || failed=$?

"$llvm_profdata" merge --sparse --failure-mode=all --output="$out/profile.profdata" "$out"/profiles/*.profraw
objects=()
for program in "${programs[@]}"; do objects+=(--object "$program"); done
"$llvm_cov" export --format=lcov --instr-profile="$out/profile.profdata" "${objects[@]}" --sources "$root/src" \
    >"$out/lcov.info"
"$llvm_cov" show --format=html --instr-profile="$out/profile.profdata" "${objects[@]}" --output-dir="$out/html" \
    --sources "$root/src"

bar=0
python3 tests/coverage/table.py table "$out/lcov.info" "$root/src" || bar=$?
if ((failed != 0)); then
    echo "coverage: the tests failed (cargo test ended with $failed)" >&2
    exit "$failed"
fi
exit "$bar"
