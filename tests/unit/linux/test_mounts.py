import os

from runrootless.linux.mounts import lasting_numbers


def test_mounts_of_this_host_with_a_lasting_number() -> None:
    here = os.getcwd()
    os.chdir("/proc")
    try:
        found = lasting_numbers()
    finally:
        os.chdir(here)
    # Proc is but a word, and no device that is not anonymous needs a number.
    assert os.stat("/proc").st_dev not in found
    assert all(os.major(device) == 0 and number >> 63 for device, number in found.items())
