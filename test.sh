#!/bin/bash
# Everything CI checks: lint, format, types, then the tests. Arguments go to pytest:
#   ./test.sh tests/unit -k transform
# Without arguments several workers share the tests, which "-n auto" does with others.
# Run as root it runs all tests: the containers as a user without privileges, and
# beside them the same scripts in a plain chroot, whose answers are the right ones.
# Run as any other user it skips those that need the chroot, and says so.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
umask 022

# A machine of CI is thrown away: dpkg need not wait for its disk after each file.
[ -z "${CI:-}" ] || export DPKG_FORCE=unsafe-io
# Not gcc-multilib, which can't be installed beside a cross compiler: what it depends on.
install_packages gcc
install_packages "gcc-$(/usr/bin/gcc -dumpversion)-multilib" \
    apache2-utils attr buildah busybox-static ca-certificates containerd crun dbus-daemon debian-archive-keyring \
    debhelper debootstrap dh-python docker-registry dpkg-dev e2fsprogs fish gcc-aarch64-linux-gnu git iproute2 \
    libc6-dev libc6-dev-arm64-cross libglib2.0-bin make mandoc mmdebstrap munge openssl passt passwd podman \
    procps proot python3 python3-mesonpy python3-venv qemu-user rpm runc skopeo slirp4netns slurm-client \
    slurmctld slurmd uidmap umoci util-linux xz-utils zsh zstd
unset DPKG_FORCE

if world_readable .; then
    venv=$PWD/.venv
else
    # The tests run what is installed as another user, who could not read it here.
    checkout=$(printf '%s' "$PWD" | sha256sum | cut -c1-12)
    venv=$(own_directory)/venv-$checkout
fi
make_venv "$venv"

# The test tools are those of pyproject.toml; installed again only when it says others.
tools=$("$venv/bin/python" - <<'PYTHON'
import tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
print("\n".join(project["project"]["optional-dependencies"]["test"]))
PYTHON
)
if [ "$tools" != "$(cat "$venv/tools" 2>/dev/null)" ]; then
    step "installing the test tools"
    mapfile -t requirements <<<"$tools"
    quietly "$venv/bin/python" -m pip install "${requirements[@]}" ||
        die "could not install the test tools into $venv"
    printf '%s\n' "$tools" >"$venv/tools"
fi
install_checkout "$venv" "$PWD"

step "ruff, mypy"
"$venv/bin/ruff" check
"$venv/bin/ruff" format --check
"$venv/bin/mypy"
"$venv/bin/mypy" --python-version 3.11 tests bench

step "pytest"
# Not with a choice of tests: to workers -s and --pdb mean nothing.
[ $# -gt 0 ] || set -- --numprocesses=auto
exec "$venv/bin/python" -m pytest "$@"
