"""Which network a container gets, and what that makes of its spec."""

import json
from pathlib import Path
from typing import Any

import pytest

from runrootless import network
from runrootless.bundle.spec import NETWORK_ANNOTATION
from runrootless.bundle.transform import transform
from runrootless.derived_bundle import derive
from runrootless.errors import Error
from runrootless.network import NAMES, Network
from runrootless.runtimes import Runtime
from support.machines import Machine

RUNTIME = Runtime("/nonexistent/runc")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both helpers, and the device that they need."""
    directory = tmp_path / "tools"
    directory.mkdir()
    for name in ("pasta", "slirp4netns"):
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    (directory / "tun").touch()
    monkeypatch.setattr(network, "_TUN", str(directory / "tun"))
    monkeypatch.setenv("PATH", f"relative:{directory}")
    return directory


@pytest.mark.parametrize("wanted", ["", "bridge", "Host", ":x", "host:x", "none:"])
def test_refused(wanted: str) -> None:
    with pytest.raises(Error, match="--network"):
        Network(wanted)


def test_options(tools: Path) -> None:
    wanted = Network("pasta:-t,8080,--mtu,1500")
    assert wanted.options == ["-t", "8080", "--mtu", "1500"]
    assert wanted.program == str(tools / "pasta")
    options = wanted._helper_options()
    assert options[options.index("-u") + 1] == "none"
    assert options.count("-t") == 1


def test_device_that_is_missing_or_closed(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_TUN", str(tools / "none"))
    with pytest.raises(Error, match="modprobe tun"):
        Network("slirp4netns")


def spec_with(*namespaces: dict[str, str]) -> dict[str, Any]:
    return {
        "process": {"args": ["sh"], "cwd": "/", "env": []},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [*namespaces], "sysctl": {"net.ipv4.ip_forward": "1"}},
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("namespace", [{}, {"path": "/run/netns/x"}])
def test_namespace(name: str, namespace: dict[str, str], tmp_path: Path, tools: Path) -> None:
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    spec = spec_with({"type": "network", **namespace}, {"type": "pid"})
    wanted = Network(name)
    wanted.set_namespace(spec)
    transform(spec, str(tmp_path), Machine(), False, own_network=True)
    wanted.connect(spec, str(tmp_path), Machine())
    expected = [{"type": "pid"}, {"type": "network"}, {"type": "user"}]
    if name == "host":
        del expected[1]
    assert spec["linux"]["namespaces"] == expected
    # Those of a network of its own may be set, the host's not.
    assert bool(spec["linux"]["sysctl"]) == (name != "host")
    assert ("hooks" in spec) == (name in ("pasta", "slirp4netns"))


def test_hooks_of_the_bundle_come_later(tmp_path: Path, tools: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    theirs = {"path": "/bin/true"}
    spec = spec_with()
    spec["hooks"] = {"createRuntime": [theirs], "poststop": [theirs]}
    connected = spec | {"mounts": []}
    Network("pasta").connect(connected, str(tmp_path), Machine())
    assert connected["hooks"]["createRuntime"][1:] == [theirs]
    assert connected["hooks"]["poststop"] == [theirs]


@pytest.mark.parametrize("hooks", [["x"], {"createRuntime": {"path": "x"}}, "x"])
def test_hooks_that_are_none(hooks: Any, tmp_path: Path, tools: Path) -> None:
    spec = spec_with() | {"mounts": [], "hooks": hooks}
    with pytest.raises(Error, match="hooks"):
        Network("pasta").connect(spec, str(tmp_path), Machine())


def test_name_server_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "resolv.conf"
    theirs.write_text("# a comment\nnameserver 127.0.0.53\noptions edns0\nsearch a.test b.test\n")
    monkeypatch.setattr(network, "RESOLV_CONF", str(theirs))
    assert network.resolv_conf("192.0.2.1") == (
        "nameserver 192.0.2.1\noptions edns0\nsearch a.test b.test\n"
    )
    theirs.unlink()
    assert network.resolv_conf("192.0.2.1") == "nameserver 192.0.2.1\n"


def test_annotation(tmp_path: Path) -> None:
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(spec_with() | {"annotations": {NETWORK_ANNOTATION: "bridge"}}))
    with pytest.raises(Error, match="no network bridge"):
        derive("", str(tmp_path), "config.json", str(tmp_path), False)
    # The flag comes first.
    (tmp_path / "private").mkdir()
    private = str(tmp_path / "private")
    derive("", str(tmp_path), "config.json", private, False, "none")
    derived = json.loads((tmp_path / "private/config.json").read_text())
    assert {"type": "network"} in derived["linux"]["namespaces"]
