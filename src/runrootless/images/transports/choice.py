"""Which client speaks to registries: skopeo where it is installed, else the one in Python."""

from __future__ import annotations

from runrootless.errors import Error
from runrootless.images.transports.skopeo import Skopeo, is_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runrootless.images.cache import Cache
    from runrootless.images.reference import Name
    from runrootless.images.transports import Transport

AUTO, SKOPEO = "auto", "skopeo"


def transport(
    choice: str, name: Name, cache: Cache, tls_verify: bool | None, certificates: str
) -> Transport:
    """Return what gets at the images of a name, and gives them.

    ``tls_verify`` is None where the configuration is to say, ``certificates`` a directory, or
    empty. Raises Error where no client is installed.
    """
    if choice == SKOPEO or (choice == AUTO and is_there()):
        return Skopeo(name, cache, tls_verify, certificates)
    try:
        from runrootless.images.transports.oras import Oras
    except ImportError:
        raise Error(
            "neither skopeo nor the Python client for registries is there: "
            "apt-get install skopeo, or pip install 'runrootless[images]'"
        ) from None
    return Oras(name, cache, tls_verify, certificates)
