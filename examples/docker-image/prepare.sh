#!/bin/bash
# Makes the bundle of any image of a registry in ./bundle, as any user:
#   ./prepare.sh NAME[:TAG] [COMMAND ...]
set -euo pipefail
# shellcheck source=examples/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
case ${1:--} in
-*)
    echo "usage: prepare.sh NAME[:TAG] [COMMAND ...]" >&2
    exit 2
    ;;
esac
name=$1
shift
prepare "docker://$name" "$@"
