#!/bin/bash
# Makes the bundle of this example in ./bundle, as any user. SOURCE= takes it from elsewhere:
# see `runrootless bundle --help`.
set -euo pipefail
# shellcheck source=examples/lib.sh
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
takes_nothing "$@"
prepare docker://opensuse/leap:15.6 bash
