# shellcheck shell=bash
# What the examples' prepare.sh share. Sourced, not run.

# Makes the bundle beside the script that calls, of $SOURCE, or of the source that is given, with a
# command for it. The user's directory stays: a SOURCE of any kind may be relative to it.
prepare() {
    local source=${SOURCE:-$1} runrootless=${RUNROOTLESS:-runrootless} bundle
    shift
    bundle=$(dirname "$(readlink -f "$0")")/bundle
    command -v "$runrootless" >/dev/null || {
        echo "${0##*/}: $runrootless is not found: install it, or set RUNROOTLESS to its path" >&2
        exit 1
    }
    "$runrootless" bundle --force --tty "$source" "$bundle" "$@"
    echo "made $bundle; run it with: $runrootless run --bundle $bundle any-name"
}

# Ends the script that calls, if it is given an argument.
takes_nothing() {
    [ $# -gt 0 ] || return 0
    echo "usage: ${0##*/} (without arguments; SOURCE= takes the image from elsewhere)" >&2
    exit 2
}
