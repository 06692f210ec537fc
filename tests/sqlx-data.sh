#!/usr/bin/env bash
# The offline data of checked queries (.sqlx): `write` it from a freshly migrated database, or `check` that it is current.
# The database is an embedded one in a directory of its own, or a new one on the server that DATABASE_URL names.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:?write or check}
case $mode in write | check) ;; *) echo "write or check, not $mode" >&2; exit 2 ;; esac
fresh=$(mktemp -d "${TMPDIR:-/tmp}/runlane-sqlx.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
# Queries are described while the crate is compiled, and cargo does not know that the database is an input of that.
touch src/lib.rs
"${CARGO_TARGET_DIR:-target}"/debug/runlane with-database -- \
  env SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" cargo check --quiet --locked --all-targets --all-features
if [[ -z $(ls "$fresh") ]]; then
  echo "no query was described: the compiler reused what it had" >&2
  exit 1
fi
case $mode in
  write)
    mkdir -p .sqlx
    rm -f .sqlx/query-*.json
    cp "$fresh"/query-*.json .sqlx/
    ;;
  check)
    # Each difference is a file: missing, stale or no longer used.
    if ! diff -rq .sqlx "$fresh" >&2; then
      echo ".sqlx is out of date: run \`make generate\`" >&2
      exit 1
    fi
    ;;
esac
