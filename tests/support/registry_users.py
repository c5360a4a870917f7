"""A user of registries, with a cache and a configuration of an own."""

import base64
import json
import os

from support.containers import Runrootless
from support.tokens import PASSWORD, USER


class Place:
    """Where a user makes bundles, with an own cache and configuration."""

    def __init__(self, runrootless: Runrootless, transport: str, path: str) -> None:
        self._runrootless = runrootless
        self._transport = transport
        self.path = path
        self.env = {"XDG_CACHE_HOME": f"{path}/cache", "HOME": path}
        self._count = self._caches = 0

    def make(self, image: str, *options: str) -> str:
        """Make a bundle; return the text in it by which images differ, or else the error."""
        self._count += 1
        bundle = f"{self.path}/{self._count}"
        words = ["bundle", f"--transport={self._transport}", *options, f"docker://{image}", bundle]
        done = self._runrootless(*words, env=self.env)
        if done.returncode:
            assert not os.path.exists(bundle)
            lines = [line for line in done.stderr.splitlines() if "ing " not in line[:28]]
            assert len(lines) == 1, done
            return lines[0]
        with open(f"{bundle}/rootfs/etc/which") as file:
            return file.read()

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the user's."""
        path = f"{self.path}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        while path != self.path:
            self._runrootless.user.give(path)
            path = os.path.dirname(path)

    def commit(self, bundle: str, image: str, *options: str) -> str:
        """Give an image of a bundle to a registry; return its digest, or else the error."""
        words = ["commit", f"--transport={self._transport}", *options, bundle, f"docker://{image}"]
        done = self._runrootless(*words, env=self.env)
        if done.returncode:
            assert len(done.stderr.splitlines()) == 1, done
            return done.stderr.strip()
        return done.stdout.strip()

    def log_in(
        self,
        address: str,
        password: str = PASSWORD,
        identity_token: str = "",
        name: str = ".docker/config.json",
    ) -> None:
        """Keep credentials as ``docker login`` does, and ``podman login`` in another file."""
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        entry = {"auth": auth}
        if identity_token:
            entry = {"auth": base64.b64encode(f"{USER}:".encode()).decode()}
            entry["identitytoken"] = identity_token
        self.write(name, json.dumps({"auths": {address: entry}}))

    def forget(self) -> None:
        """Have an empty cache."""
        self._caches += 1
        self.env["XDG_CACHE_HOME"] = f"{self.path}/cache{self._caches}"
