"""The files of name service that a container gets."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from test_bundle_mounts import entry, spec_with

from runrootless.bundle import name_service
from runrootless.errors import Error
from support.machines import Machine


def test_what_dns_takes() -> None:
    assert [name_service.is_wanted(name) for name in ("", "host", "none")] == [True, True, False]
    with pytest.raises(Error, match="no name service nowhere: --dns takes host, none"):
        name_service.is_wanted("nowhere")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    for name in ("resolv.conf", "hosts"):
        (root / "etc" / name).write_text("")
    return root


class TestNameService:
    @pytest.fixture(autouse=True)
    def make_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "private"
        self.directory.mkdir()

    def destinations(
        self, root: Path, spec: dict[str, Any], host: Machine | None = None, access: str = ""
    ) -> Any:
        spec["root"]["path"] = str(root)
        before = len(spec["mounts"])
        name_service.add_host_files(spec, host or Machine(), str(self.directory))
        for mount in spec["mounts"][before:]:
            name = os.path.basename(mount["destination"])
            assert mount["source"] == str(self.directory / name)
            assert Path(mount["source"]).read_bytes() == Path("/etc", name).read_bytes()
            mode = os.stat(f"/etc/{name}").st_mode | 0o444
            assert os.stat(mount["source"]).st_mode == stat.S_IFREG | stat.S_IMODE(mode)
            assert mount["options"] == ["bind", "nosuid", "noexec", "nodev", *access.split()]
        return [mount["destination"] for mount in spec["mounts"][before:]]

    def test_read_only_where_the_root_is(self, root: Path) -> None:
        spec = spec_with()
        spec["root"]["readonly"] = True
        assert len(self.destinations(root, spec, access="ro")) == 2

    def test_whatever_the_mask(self, root: Path) -> None:
        before = os.umask(0o077)
        try:
            assert len(self.destinations(root, spec_with())) == 2
        finally:
            os.umask(before)

    def test_copies_of_the_hosts_files_are_bound(self, root: Path) -> None:
        assert self.destinations(root, spec_with()) == ["/etc/resolv.conf", "/etc/hosts"]

    @pytest.mark.parametrize("taken", ["/etc/hosts", "etc/hosts", "/etc/./hosts/"])
    def test_not_over_a_mount_of_the_specs(self, root: Path, taken: str) -> None:
        spec = spec_with(entry("bind", taken, "bind", source="/x"))
        assert self.destinations(root, spec) == ["/etc/resolv.conf"]

    def test_not_into_a_mount_of_the_specs(self, root: Path) -> None:
        spec = spec_with(entry("bind", "/etc", "rbind", source="/x"))
        assert self.destinations(root, spec) == []

    def test_not_in_another_network(self, root: Path) -> None:
        assert self.destinations(root, spec_with(namespaces="network mount")) == []

    def test_only_what_the_host_has(self, root: Path) -> None:
        host = Machine(files=("/etc/hosts",))
        assert self.destinations(root, spec_with(), host) == ["/etc/hosts"]

    def test_a_mount_point_can_be_made(self, root: Path) -> None:
        (root / "etc/hosts").unlink()
        (root / "etc/resolv.conf").unlink()
        (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
        assert self.destinations(root, spec_with()) == ["/etc/resolv.conf", "/etc/hosts"]

    def test_not_over_a_directory(self, root: Path) -> None:
        (root / "etc/hosts").unlink()
        (root / "etc/hosts").mkdir()
        assert self.destinations(root, spec_with()) == ["/etc/resolv.conf"]

    def test_a_link_out_of_the_root_is_none(self, root: Path, tmp_path: Path) -> None:
        """It means a path in the root, which is missing here."""
        (tmp_path / "outside").mkdir()
        (root / "etc/hosts").unlink()
        (root / "etc/hosts").symlink_to(f"{tmp_path}/outside")
        assert self.destinations(root, spec_with()) == ["/etc/resolv.conf", "/etc/hosts"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_not_where_a_mount_point_cannot_be_made(self, root: Path) -> None:
        (root / "etc/hosts").unlink()
        (root / "etc").chmod(0o555)
        assert self.destinations(root, spec_with()) == ["/etc/resolv.conf"]
