#!/bin/bash
# From a fresh Debian to a container of a user without privileges, in one command:
# installs what is missing, makes the bundle examples/debian, and runs in it
#   apt-get update && apt-get install -y cowsay && /usr/games/cowsay hello rootless world
# Root, by itself or through sudo, is needed for the packages only. Started by root
# the rest is done as a user without privileges and without subordinate IDs.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
umask 022

has_subordinate_ids() {
    grep -qs -e "^$1:" -e "^$(id -u "$1"):" /etc/subuid /etc/subgid
}

# Prints the user to go on as: who called sudo, or a system user, which useradd
# gives no subordinate IDs.
choose_user() {
    local user=${SUDO_USER:-}
    if [ -n "$user" ] && [ "$(id -u "$user")" -ne 0 ] && ! has_subordinate_ids "$user"; then
        printf '%s\n' "$user"
        return
    fi
    user=runrootless
    id "$user" >/dev/null 2>&1 ||
        useradd --system --create-home --home-dir /var/lib/runrootless --shell /bin/bash "$user"
    ! has_subordinate_ids "$user" || die "the user $user has subordinate IDs"
    printf '%s\n' "$user"
}

# Runs a command as that user for good, with a clean environment but for what the
# way to the network needs.
as_user() {
    local user=$1 name
    shift
    local -a keep=()
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY LANG; do
        [ -z "${!name:-}" ] || keep+=("$name=${!name}")
    done
    setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups --reset-env \
        env -C / "${keep[@]}" "$@"
}

install_packages \
    ca-certificates debian-archive-keyring gcc libc6-dev mmdebstrap passwd python3 python3-mesonpy \
    python3-venv runc util-linux

if [ "$(id -u)" -eq 0 ]; then
    user=$(choose_user)
    if as_user "$user" test -r "$PWD/pyproject.toml" -a -w "$PWD" -a -w "$PWD/examples/debian"; then
        directory=$PWD
    else
        directory=$(getent passwd "$user" | cut -d: -f6)/runrootless-quickstart
        step "$user can't work in $PWD: copying it to $directory"
        as_user "$user" mkdir -p "$directory"
        as_user "$user" rm -rf "$directory/src" "$directory/native"
        tar --exclude='./.*' --exclude=./build --exclude=./examples/debian/bundle -cf - . |
            as_user "$user" tar -C "$directory" -xf - --no-same-owner
    fi
    step "going on as the user $user: $(as_user "$user" id)"
    become=
    if [ "$user" != "${SUDO_USER:-}" ]; then
        become="su - $user"
        [ -z "${SUDO_USER:-}" ] || become="sudo $become"
    fi
    as_user "$user" "become=$become" bash "$directory/quickstart.sh" "$@"
    exit
fi

venv=$PWD/.venv
bundle=$PWD/examples/debian/bundle
if has_subordinate_ids "$(id -un)"; then
    step "$(id -un) has subordinate IDs; they are not used here"
fi

# Installed again only when the checkout is another.
installed=$(find "${sources[@]}" -type f -not -path '*/__pycache__/*' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
if [ "$installed" != "$(cat "$venv/installed" 2>/dev/null)" ]; then
    step "installing runrootless into $venv"
    make_venv "$venv"
    install_checkout "$venv" "$PWD"
    printf '%s\n' "$installed" >"$venv/installed"
fi

script="apt-get update && apt-get install -y cowsay && /usr/games/cowsay hello rootless world"
if [ ! -d "$bundle" ]; then
    step "making a minimal Debian as $(id -un): about half a minute"
    # A regular bundle, as for real root: nothing in its config.json is rootless.
    "$venv/bin/runrootless" bundle --quiet --mirror "$(debian_mirror)" \
        debian:bookworm "$bundle" sh -c "$script" || die "the bundle could not be made"
fi

step "plain runc refuses the bundle:"
state=$(mktemp -d)
echo "\$ runc run --bundle $bundle demo"
if runc --root "$state" run --bundle "$bundle" demo </dev/null; then
    die "runc ran the bundle: this machine lets $(id -un) do more than it should"
fi
rm -rf "$state"

step "runrootless runs it:"
echo "\$ $venv/bin/runrootless run --bundle $bundle demo"
"$venv/bin/runrootless" run --bundle "$bundle" "quickstart-$$"
step "done; the bundle stays in $bundle. To go on, type:"
[ -z "${become:-}" ] || printf '%s\n' "$become"
printf '%s\n' \
    "PATH=$venv/bin:\$PATH" \
    "runrootless run --bundle $bundle demo    # the same again" \
    "runrootless bundle --tty debian:bookworm ~/mybundle && runrootless run --bundle ~/mybundle web    # a shell"
