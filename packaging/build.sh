#!/bin/bash
# Builds a package of this checkout: packaging/build.sh deb|rpm DIRECTORY
# puts it into the directory. Further arguments go to dpkg-buildpackage or rpmbuild.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
kind=$1
mkdir -p "$2"
out=$(readlink -f "$2")
shift 2
cd "$(dirname "$(readlink -f "$0")")/.."

# The one place where it is written, and the day that the changelog says it is of.
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/runrootless/__init__.py)
day=$(sed -n "s/^## \[$version\] - \([0-9-]*\)$/\1/p" CHANGELOG.md)
[ -n "$version" ] && [ -n "$day" ] || { echo "build.sh: CHANGELOG.md does not have $version" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$work/runrootless-$version
mkdir "$source"
cp -r bin docs meson.build native packaging pyproject.toml src CHANGELOG.md LICENSE README.md "$source"
find "$source" -name __pycache__ -prune -exec rm -rf {} +

case $kind in
deb)
    mv "$source/packaging/debian" "$source/debian"
    cat >"$source/debian/changelog" <<CHANGELOG
runrootless ($version) unstable; urgency=medium

  * Version $version: see CHANGELOG.md.

 -- The runROOTLESS developers <packages@runrootless.invalid>  $(LC_ALL=C date -u -R -d "$day")
CHANGELOG
    (cd "$source" && dpkg-buildpackage --build=binary --no-sign "$@")
    cp "$work"/*.deb "$out"
    ;;
rpm)
    tar -C "$work" -czf "$work/runrootless-$version.tar.gz" "runrootless-$version"
    rpmbuild -bb --define "_topdir $work/rpm" --define "_sourcedir $work" \
        --define "runrootless_version $version" "$@" packaging/runrootless.spec
    cp "$work"/rpm/RPMS/*/*.rpm "$out"
    ;;
*)
    echo "build.sh: $kind is neither deb nor rpm" >&2
    exit 2
    ;;
esac
