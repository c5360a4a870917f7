"""The mounts of a spec, as an unprivileged caller can make them."""

from pathlib import Path
from typing import Any

import pytest

from runrootless.bundle import mounts
from runrootless.errors import Error
from support.machines import Machine

SYS = {
    "destination": "/sys",
    "type": "none",
    "source": "/sys",
    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
}


def spec_with(*entries: dict[str, Any], namespaces: str = "pid ipc mount user") -> dict[str, Any]:
    return {
        "root": {"path": "/rootfs"},
        "mounts": [dict(entry) for entry in entries],
        "linux": {"namespaces": [{"type": name} for name in namespaces.split()]},
    }


def entry(kind: str, destination: str, *options: str, **more: Any) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "options": list(options), **more}


class TestKernelFileSystems:
    def test_sys_is_the_hosts(self) -> None:
        spec = spec_with(entry("sysfs", "/sys", "ro", source="sysfs"))
        mounts.bind_kernel_file_systems(spec, Machine())
        assert spec["mounts"] == [SYS]

    def test_also_elsewhere(self) -> None:
        spec = spec_with(entry("sysfs", "/mnt/sys"))
        mounts.bind_kernel_file_systems(spec, Machine())
        assert spec["mounts"] == [{**SYS, "destination": "/mnt/sys"}]

    def test_what_shows_a_namespace_of_the_container_is_mounted(self) -> None:
        entries = [
            entry("proc", "/proc"),
            entry("mqueue", "/dev/mqueue"),
            entry("tmpfs", "/tmp"),
            entry("cgroup", "/sys/fs/cgroup", "ro"),
        ]
        spec = spec_with(*entries)
        mounts.bind_kernel_file_systems(spec, Machine())
        assert spec["mounts"] == entries

    def test_without_that_namespace_it_is_bound(self) -> None:
        spec = spec_with(
            entry("proc", "/proc"), entry("mqueue", "/dev/mqueue"), namespaces="mount user"
        )
        mounts.bind_kernel_file_systems(spec, Machine())
        options = ["rbind", "nosuid", "noexec", "nodev"]
        assert spec["mounts"] == [
            {"destination": "/proc", "type": "none", "source": "/proc", "options": options},
            {
                "destination": "/dev/mqueue",
                "type": "none",
                "source": "/dev/mqueue",
                "options": options,
            },
        ]

    def test_what_the_host_has_not_is_left_out(self) -> None:
        spec = spec_with(entry("mqueue", "/dev/mqueue"), namespaces="mount user")
        mounts.bind_kernel_file_systems(spec, Machine(files=()))
        assert spec["mounts"] == []


class TestPlacesOfKernelFileSystems:
    """Runtimes mount proc and sysfs on directories only: so must be what is bound there."""

    @pytest.mark.parametrize("namespaces", ["mount user", "mount user pid ipc"])
    @pytest.mark.parametrize("destination", ["/sys", "sys/", "/a/./b//../sys", "/link/sys"])
    @pytest.mark.parametrize("kind", ["sysfs", "proc"])
    @pytest.mark.parametrize("found", ["nothing", "directory", "symlink", "dangling", "file"])
    def test_only_directories(
        self, namespaces: str, destination: str, kind: str, found: str, tmp_path: Path
    ) -> None:
        root = tmp_path / "rootfs"
        (root / "a" / "b").mkdir(parents=True)
        # In the container it leads to /a, and outside nowhere.
        (root / "link").symlink_to("/a")
        parent = root / "a" if destination.count("/") > 1 else root
        place = parent / "sys"
        if found == "directory":
            place.mkdir()
        elif found == "symlink":
            place.symlink_to("/a")
        elif found == "dangling":
            place.symlink_to("/nowhere")
        elif found == "file":
            place.touch()
        spec = spec_with(entry(kind, destination), namespaces=namespaces)
        spec["root"]["path"] = str(root)
        is_bound = kind == "sysfs" or "pid" not in namespaces
        if is_bound and found not in ("nothing", "directory"):
            with pytest.raises(Error, match=f"cannot mount {kind} on /.*sys: "):
                mounts.bind_kernel_file_systems(spec, Machine())
        else:
            mounts.bind_kernel_file_systems(spec, Machine())
            assert (spec["mounts"][0]["type"] == "none") == is_bound

    def test_what_another_mount_covers_does_not_matter(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "sys").symlink_to("/nowhere")
        covering, ours = entry("tmpfs", "/a/"), entry("sysfs", "/a/sys")
        spec = spec_with(covering, ours)
        spec["root"]["path"] = str(tmp_path)
        mounts.bind_kernel_file_systems(spec, Machine())
        assert spec["mounts"] == [covering, {**SYS, "destination": "/a/sys"}]
        spec["mounts"] = [ours, covering]
        with pytest.raises(Error):
            mounts.bind_kernel_file_systems(spec, Machine())


class TestOwners:
    def test_ids_that_are_not_mapped_go(self) -> None:
        spec = spec_with(
            entry("tmpfs", "/a", "mode=755", "uid=1000", "gid=5", "size=1k"),
            entry("tmpfs", "/b", "uid=0", "gid=0"),
            entry("devpts", "/dev/pts", "newinstance", "gid=5", "mode=0620"),
            entry("devpts", "/pts", "gid=0", "uid=0"),
        )
        mounts.drop_unmapped_owners(spec)
        assert [mount["options"] for mount in spec["mounts"]] == [
            ["mode=755", "size=1k"],
            ["uid=0", "gid=0"],
            ["newinstance", "mode=0620"],
            [],
        ]

    def test_mapped_mounts_take_privileges(self) -> None:
        spec = spec_with(
            entry("bind", "/a", "rbind", "idmap", source="/a", uidMappings=[], gidMappings=[])
        )
        mounts.drop_unmapped_owners(spec)
        assert spec["mounts"] == [entry("bind", "/a", "rbind", source="/a")]


class TestBinds:
    @pytest.mark.parametrize(
        "mount",
        [
            entry("bind", "/a", "ro", source="data"),
            entry("none", "/a", "bind", source="data"),
            entry("", "/a", "rbind", source="data"),
        ],
    )
    def test_relative_sources_are_in_the_bundle(self, mount: dict[str, Any]) -> None:
        spec = spec_with(mount)
        mounts.fit_bind_mounts(spec, "/the/bundle", Machine())
        assert spec["mounts"][0]["source"] == "/the/bundle/data"

    def test_others_are_no_paths(self) -> None:
        spec = spec_with(entry("tmpfs", "/a", source="tmpfs"))
        mounts.fit_bind_mounts(spec, "/the/bundle", Machine())
        assert spec["mounts"][0]["source"] == "tmpfs"

    def test_the_flags_of_the_file_system_are_kept(self) -> None:
        """An option of the user's that would take one off comes first, and loses."""
        spec = spec_with(
            entry("bind", "/a", "rbind", "rw", "exec", "nodev", source="/media/a"),
            entry("bind", "/b", "rbind", source="b"),
        )
        locked = {"/media/a": ["ro", "nodev", "noexec"], "/bundle/b": ["nosuid"]}
        mounts.fit_bind_mounts(spec, "/bundle", Machine(locked=locked))
        assert [mount["options"] for mount in spec["mounts"]] == [
            ["rbind", "rw", "exec", "nodev", "ro", "noexec"],
            ["rbind", "nosuid"],
        ]


def test_everything_is_done_in_order(tmp_path: Path) -> None:
    spec = spec_with(entry("sysfs", "/sys"), entry("bind", "/data", "bind", source="data"))
    spec["root"]["path"] = str(tmp_path)
    # The mount of /sys is made here, so what is locked on it matters too.
    mounts.fit_mounts(spec, "/b", Machine(locked={"/sys": ["nosuid"], "/b/data": ["ro"]}))
    assert spec["mounts"] == [
        SYS,
        entry("bind", "/data", "bind", "ro", source="/b/data"),
    ]
    del spec["mounts"]
    mounts.fit_mounts(spec, "/b", Machine(files=()))
    assert spec["mounts"] == []


class TestTerminals:
    @pytest.mark.parametrize(
        ("options", "group"),
        [
            (["gid=5"], 5),
            (["newinstance", "mode=0620", "gid=0"], 0),
            (["gid=5", "gid=7"], 7),
            (["uid=5", "mode=0620"], None),
            (["gid=tty"], None),
            ([], None),
        ],
    )
    def test_the_group_of_terminals(self, options: list[str], group: int | None) -> None:
        spec = spec_with(entry("tmpfs", "/dev", "gid=3"), entry("devpts", "/dev/pts", *options))
        assert mounts.terminal_group(spec) == group

    def test_without_terminals(self) -> None:
        assert mounts.terminal_group(spec_with(entry("tmpfs", "/dev", "gid=3"))) is None
        assert mounts.terminal_group({}) is None
        assert mounts.terminal_group({"mounts": [{"type": "devpts", "options": None}]}) is None
