"""runrootless as on a kernel before Linux 5.19, such as clusters run (RHEL 9, Ubuntu 22.04).

It does without the flags of seccomp listeners that came later: WAIT_KILLABLE_RECV and SYNC_WAKE_UP.
The agent inherits that. All else is the present kernel's.
"""

import errno
import os

from runrootless import cli, launcher
from runrootless.linux import seccomp


def _refuse(listener: int, flags: int) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def main() -> None:
    """Do as the command does."""
    for name in launcher.FLAGS:
        launcher.FLAGS[name] &= ~launcher.WAIT_KILLABLE_RECV
    seccomp.set_flags = _refuse
    cli.run()


if __name__ == "__main__":
    main()
