"""A Slurm cluster of this machine alone, with nothing of the machine's own."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence

from support.containers import COMMAND
from support.processes import Result, eventually
from support.trees import CHECKOUT
from support.users import PATH, Unprivileged

OCI_CONF = os.path.join(CHECKOUT, "examples", "slurm", "oci.conf")
# Where the example says that the command is.
EXAMPLE_COMMAND = "/opt/runrootless/bin/runrootless"

CPUS = 8

# The processes are found by their parents and no cgroup is asked for, so that it runs on
# any layout of cgroups; the plugin named is loaded and does nothing.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\n"

SLURM_CONF = """\
ClusterName=runrootless
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={directory}/munge/socket
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=1
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


class Cluster:
    """munged, slurmctld and slurmd in the foreground, all their files in one directory."""

    def __init__(self) -> None:
        # Short, as sockets are made in it, and where every user may go.
        self.directory = tempfile.mkdtemp(prefix="rr-slurm-", dir="/tmp")
        os.chmod(self.directory, 0o755)
        self.spool = f"{self.directory}/spool"
        self.config = f"{self.directory}/slurm.conf"
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._configure()
            self._start()
        except BaseException:
            self.close()
            raise

    def _configure(self) -> None:
        for name in ("munge", "state", "spool"):
            os.mkdir(f"{self.directory}/{name}", 0o755)
        descriptor = os.open(f"{self.directory}/munge/key", os.O_WRONLY | os.O_CREAT, 0o600)
        with open(descriptor, "wb") as key:
            key.write(os.urandom(128))
        ctld_port, slurmd_port = _free_ports(2)
        text = SLURM_CONF.format(
            host=socket.gethostname().partition(".")[0],
            directory=self.directory,
            ctld_port=ctld_port,
            slurmd_port=slurmd_port,
            cpus=CPUS,
        )
        with open(OCI_CONF) as file:
            oci = file.read()
        assert EXAMPLE_COMMAND in oci
        for path, content in (
            (self.config, text),
            (f"{self.directory}/cgroup.conf", CGROUP_CONF),
            (f"{self.directory}/oci.conf", oci.replace(EXAMPLE_COMMAND, COMMAND)),
        ):
            with open(path, "w") as file:
                file.write(content)

    def _start(self) -> None:
        munge = f"{self.directory}/munge"
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
        options = [f"--{option}={munge}/{name}" for option, name in files.items()]
        self._daemon("munged", "--foreground", *options, f"--seed-file={munge}/seed")
        eventually(lambda: os.path.exists(f"{munge}/socket"), self.logs)
        self._daemon("slurmctld", "-D", "-f", self.config)
        self._daemon("slurmd", "-D", "-f", self.config, "-N", "n1")
        eventually(lambda: self._root("sinfo", "-h", "-o", "%t") == "idle\n", self.logs, 60)

    def _daemon(self, *command: str) -> None:
        with open(f"{self.directory}/{command[0]}.log", "wb") as log:
            self._daemons.append(
                subprocess.Popen(
                    command,
                    # The root's own runtime directory is not the jobs'.
                    env={"PATH": PATH, "SLURM_CONF": self.config},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _root(self, *command: str) -> str:
        env = {"PATH": PATH, "SLURM_CONF": self.config}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        return done.stdout

    def logs(self) -> str:
        """Return the end of what the daemons have to say."""
        texts = []
        for daemon in ("munged", "slurmctld", "slurmd"):
            path = f"{self.directory}/{daemon}.log"
            if os.path.exists(path):
                with open(path, errors="replace") as file:
                    texts.append(f"--- {daemon}\n{file.read()[-3000:]}")
        return "\n".join(texts)

    def run(
        self,
        user: Unprivileged,
        args: Sequence[str],
        *,
        cwd: str | None = None,
        input: str | None = None,
        timeout: float = 120,
    ) -> Result:
        """Run one of Slurm's commands as a user of the cluster."""
        env = {"SLURM_CONF": self.config}
        return user.run(args, cwd=cwd, env=env, input=input, timeout=timeout)

    def steps(self) -> list[str]:
        """Return the spool directories of steps with containers that are not over."""
        return [name for name in os.listdir(self.spool) if name.startswith("oci-job")]

    def close(self) -> None:
        """Cancel all jobs, end the daemons and remove their files."""
        if len(self._daemons) == 3:
            self._root("scancel", "--state=PENDING")
            self._root("scancel", "--state=RUNNING")
            eventually(lambda: not self._root("squeue", "-h") and not self.steps(), self.logs, 60)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
