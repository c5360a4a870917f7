"""A package for Alpine in two versions, with files of many owners and scripts that make users."""

import struct
import tarfile

from support.apk import entry, make_package

# struct vfs_cap_data of <linux/capability.h>: cap_net_raw+ep.
_CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
_SCRIPTS = {
    "pre-install": """#!/bin/sh
addgroup -g 2345 many-g; adduser -D -H -u 1234 -G many-g -h /opt/many many-u
echo "pre-install $* $(id -u):$(id -g)" >>/var/log/many
""",
    "post-install": """#!/bin/sh
touch /opt/many/state; chown many-u:many-g /opt/many/state; chmod 2640 /opt/many/state
su many-u -s /bin/sh -c 'id -un; id -Gn' >>/var/log/many
echo "post-install $*" >>/var/log/many
""",
    "pre-upgrade": '#!/bin/sh\necho "pre-upgrade $*" >>/var/log/many\n',
    "post-upgrade": """#!/bin/sh
echo "post-upgrade $* $(stat -c %U /opt/many/plain)" >>/var/log/many
""",
    "pre-deinstall": "#!/bin/sh\nrm -f /opt/many/state\n",
    "post-deinstall": """#!/bin/sh
deluser many-u; delgroup many-g 2>/dev/null; echo "post-deinstall $*" >>/var/log/many
""",
}


def make_many(version: int) -> bytes:
    """Return the package many in its version 1 or 2."""
    text = f"{version}\n".encode()
    plain = ("many-u", "many-g", 0o4750) if version == 2 else ("root", "root", 0o644)
    directory, character, block = tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE
    attributes = {"security.capability": _CAPABILITY}
    entries = [
        (entry("etc", "root", "root", 0o755, directory), b""),
        (entry("etc/many.conf", "root", "mail", 0o640), text),
        (entry("etc/many-kept.conf", "many-u", "root", 0o600), text),
        (entry("opt", "root", "root", 0o755, directory), b""),
        (entry("opt/many", "root", "root", 0o755, directory), b""),
        (entry("opt/many/both", "many-u", "many-g", 0o6711), text),
        (entry("opt/many/capable", "root", "root", 0o755, attributes=attributes), text),
        (entry("opt/many/disk", "root", "mail", 0o660, block, device=(7, 0)), b""),
        (entry("opt/many/empty", "daemon", "mail", 0o700, directory), b""),
        (entry("opt/many/link", "games", "mail", 0o777, tarfile.SYMTYPE, link="plain"), b""),
        (entry("opt/many/null", "root", "mail", 0o666, character, device=(1, 3)), b""),
        (entry("opt/many/other", "many-u", "many-g", 0o620, character, device=(200, 9)), b""),
        (entry("opt/many/plain", *plain), text),
        (entry("opt/many/setgid", "root", "mail", 0o2755), text),
        (entry("opt/many/setuid", "daemon", "root", 0o4755), text),
        (
            entry(
                "opt/many/hard", "daemon", "root", 0o4755, tarfile.LNKTYPE, link="opt/many/setuid"
            ),
            b"",
        ),
        (entry("opt/many/shared", "many-u", "many-g", 0o3775, directory), b""),
        (entry("opt/many/sticky", "root", "root", 0o1644), text),
    ]
    return make_package("many", f"{version}-r0", entries, _SCRIPTS)
