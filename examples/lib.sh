# shellcheck shell=bash
# What the examples' prepare.sh share. Sourced, not run.

# Makes the bundle ./bundle of $SOURCE, or of the one that is given, with a command for it.
prepare() {
    local source=$1
    shift
    local runrootless=${RUNROOTLESS:-runrootless}
    command -v "$runrootless" >/dev/null || {
        echo "${0##*/}: $runrootless is not found: install it, or set RUNROOTLESS to its path" >&2
        exit 1
    }
    # From where the user has called, which was left.
    [ -z "${SOURCE:-}" ] || [ ! -e "$OLDPWD/$SOURCE" ] || SOURCE=$OLDPWD/$SOURCE
    "$runrootless" bundle --force --tty "${SOURCE:-$source}" bundle "$@"
    echo "made $PWD/bundle; run it with: $runrootless run --bundle $PWD/bundle any-name"
}
