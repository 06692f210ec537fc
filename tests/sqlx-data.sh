#!/usr/bin/env bash
# The offline data of checked queries (.sqlx): `write` it from a freshly migrated database, or `check` that it is current.
# The database is an embedded one in a directory of its own, or on the server that DATABASE_URL names.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:?write or check}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/runlane-sqlx.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
fresh=$scratch/data
mkdir "$fresh"
target/debug/runlane with-database -- env SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" CARGO_TARGET_DIR=target/sqlx \
  RUSTFLAGS=--cfg=sqlx_data cargo check --quiet --locked --all-targets --all-features
case $mode in
  write) rm -rf .sqlx && cp -r "$fresh" .sqlx ;;
  check) diff -rq "$fresh" .sqlx >/dev/null || { echo ".sqlx is out of date: run \`make generate\`" >&2; exit 1; } ;;
  *) echo "write or check, not $mode" >&2; exit 2 ;;
esac
