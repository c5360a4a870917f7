# shellcheck shell=bash
# What quickstart.sh and test.sh share. Sourced, not run.

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# A header with the seconds since the script began, so that a long step is seen to be one.
step() {
    printf '[%3ds] %s\n' "$SECONDS" "$*"
}

# Shows a long command's output as one moving line on a terminal, as nothing
# elsewhere; when the command fails, the end of its output is printed in full.
quietly() {
    local log status=0
    log=$(mktemp)
    if [ -t 1 ]; then
        local columns
        columns=$(tput cols 2>/dev/null || echo 80)
        "$@" 2>&1 </dev/null | tee "$log" | while IFS= read -r line; do
            printf '\r\033[K       %s' "${line:0:columns-8}"
        done || status=$?
        printf '\r\033[K'
    else
        "$@" >"$log" 2>&1 </dev/null || status=$?
    fi
    if [ "$status" -ne 0 ]; then
        tail -n 20 "$log" >&2
    fi
    rm -f "$log"
    return "$status"
}

# Prints those of the named Debian packages that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            printf '%s\n' "$package"
        fi
    done
}

# Installs what is missing of the named Debian packages, as root or through sudo.
# Where neither is to be had, names the one command that an administrator must run.
install_packages() {
    command -v dpkg-query >/dev/null ||
        die "this is not a Debian-like system: install the equivalents of: $*"
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    local command="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    local -a root=()
    if [ "$(id -u)" -ne 0 ]; then
        # Without a terminal sudo could only hang or fail on its password prompt.
        if ! command -v sudo >/dev/null || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; } || ! sudo true; then
            die "packages are missing; an administrator must run: $command"
        fi
        root=(sudo)
    fi
    step "installing ${missing[*]}"
    # A foreign source that is down must not stop what the others can give.
    quietly "${root[@]}" apt-get update || true
    # What is installed here is not to run as a service of this machine as well.
    local status=0 policy=/usr/sbin/policy-rc.d ours=
    if [ ! -e "$policy" ]; then
        ours=$policy
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" install -m 0755 /dev/stdin "$policy"
    fi
    quietly "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${missing[@]}" || status=$?
    [ -z "$ours" ] || "${root[@]}" rm -f "$ours"
    [ "$status" -eq 0 ] || die "could not install packages; the command was: $command"
}

# True if every user can list this directory and go through all those above it.
world_readable() {
    local path
    path=$(readlink -f "$1") || return 1
    [ $((0$(stat -c %a "$path") & 05)) -eq 5 ] || return 1
    while [ "$path" != / ]; do
        path=$(dirname "$path")
        [ $((0$(stat -c %a "$path") & 01)) -eq 1 ] || return 1
    done
}

# Prints a directory of the caller's own under /var/tmp, making it if need be.
# Anyone may have made it there first: one that is not ours is refused.
own_directory() {
    local path
    path=/var/tmp/runrootless-$(id -u)
    mkdir -m 0755 "$path" 2>/dev/null || true
    if [ -L "$path" ] || [ "$(stat -c %u "$path")" -ne "$(id -u)" ]; then
        die "$path belongs to somebody else: remove it"
    fi
    printf '%s\n' "$path"
}

# Prints the mirror of Debian that this machine's own apt uses.
debian_mirror() {
    local uri
    # shellcheck disable=SC2016 # apt's variables, not the shell's
    uri=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 2>/dev/null |
        awk '$1 == "Debian" && $2 == "Debian" { sub("/$", "", $3); print $3; exit }') || true
    printf '%s\n' "${uri:-http://deb.debian.org/debian}"
}

# Makes a virtual environment of Debian's own Python, which every user may run,
# whatever "python3" is on the caller's PATH.
make_venv() {
    local venv=$1
    [ ! -x "$venv/bin/python" ] || return 0
    # Without setuptools, of which a part would be imported at every start.
    quietly /usr/bin/python3 -m venv "$venv" &&
        quietly "$venv/bin/python" -m pip uninstall --yes setuptools ||
        die "could not make a virtual environment in $venv"
}

# What a wheel is built of, besides the package's documents.
sources=(bin CHANGELOG.md meson.build native packaging pyproject.toml src)

# Builds a wheel of this checkout with Debian's meson-python and compiler and installs it into
# a virtual environment: not editable, as users get it, and without PyPI.
install_checkout() {
    local venv=$1 checkout=$2 build status=0
    # A copy: the build writes beside what it reads.
    build=$(mktemp -d)
    cp -r "${sources[@]/#/$checkout/}" "$build"
    find "$checkout" -maxdepth 1 -type f \( -name 'README*' -o -name 'LICENSE*' \) \
        -exec cp -t "$build" {} +
    # meson and ninja are to be Debian's as well, whatever else is on the caller's PATH.
    quietly env -C "$build" -u PYTHONPATH PATH=/usr/bin:/bin /usr/bin/python3 -c '
import sys
sys.path.append("native")
import build_backend
build_backend.build_wheel(".")' &&
        quietly "$venv/bin/python" -m pip install --no-index --no-deps --force-reinstall \
            "$build"/*.whl || status=$?
    rm -rf "$build"
    [ "$status" -eq 0 ] || die "could not install $checkout into $venv"
}
