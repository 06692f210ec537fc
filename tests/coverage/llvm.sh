# Sourced by coverage.sh: finds the LLVM tools of the compiler's own major version, which alone read its profiles.

# Sets `llvm_profdata` and `llvm_cov`. Tries, in turn: LLVM_PROFDATA and LLVM_COV; the toolchain's component llvm-tools;
# the system's; Debian's packages, unpacked under target/ with nothing installed and no rights needed.
find_llvm() {
    local major
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    local cache=$PWD/target/llvm-$major
    if [[ -n ${LLVM_PROFDATA:-} && -n ${LLVM_COV:-} ]]; then
        llvm_profdata=$LLVM_PROFDATA llvm_cov=$LLVM_COV
        return
    fi
    if find_llvm_in "$(rustc --print target-libdir)/../bin" "" ||
        find_llvm_in /usr/bin "-$major" ||
        find_llvm_in "$cache/bin" ""; then
        return
    fi
    # Made aside and renamed when whole: a cut download leaves no broken cache.
    rm -rf "$cache.new"
    if ! { unpack_llvm "$major" "$cache.new" && mv "$cache.new" "$cache" && find_llvm_in "$cache/bin" ""; }; then
        rm -rf "$cache.new"
        cat >&2 <<END
coverage: no llvm-profdata and llvm-cov of LLVM $major, which this rustc was built with. Any of these helps:
  rustup component add llvm-tools
  install the system's package llvm-$major
  set LLVM_PROFDATA and LLVM_COV to the two programs
END
        return 1
    fi
}

# Takes the tools of the directory $1, with the suffix $2, when both are there and run.
find_llvm_in() {
    "$1/llvm-profdata$2" merge --version >/dev/null 2>&1 && "$1/llvm-cov$2" --version >/dev/null 2>&1 || return 1
    llvm_profdata=$1/llvm-profdata$2 llvm_cov=$1/llvm-cov$2
}

# Unpacks Debian's llvm-$1, and those packages it needs that are not installed, to the directory $2.
unpack_llvm() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    echo "coverage: fetching Debian's llvm-$1 to ${2%.new}" >&2
    mkdir -p "$2/lists/partial" "$2/archives/partial" "$2/bin" || return 1
    # Its own lists and no lock: the system's package state is read, never written.
    local apt=(apt-get -qq -o "Dir::State::lists=$2/lists" -o "Dir::Cache=$2" -o Debug::NoLocking=true
        -o APT::Sandbox::User=)
    "${apt[@]}" update >&2 || return 1
    "${apt[@]}" install --download-only --yes --no-install-recommends "llvm-$1" >&2 || return 1
    local package tool
    for package in "$2"/archives/*.deb; do
        dpkg-deb --extract "$package" "$2/root" || return 1
    done
    for tool in llvm-profdata llvm-cov; do
        cat >"$2/bin/$tool" <<END || return 1
#!/bin/sh
root=\$(dirname "\$0")/../root
LD_LIBRARY_PATH=\$(echo "\$root"/usr/lib/*-linux-gnu) exec "\$root/usr/lib/llvm-$1/bin/$tool" "\$@"
END
        chmod +x "$2/bin/$tool" || return 1
    done
    rm -rf "$2/lists" "$2/archives" "$2"/*.bin
}
