"""The text of ``--help``."""

USAGE = """\
runrootless runs OCI bundles without root and without subordinate IDs.

Usage:
  runrootless [global flags] run [flags] CONTAINER
  runrootless [global flags] create [flags] CONTAINER
  runrootless [global flags] exec [flags] CONTAINER COMMAND [ARGUMENT ...]
  runrootless setup podman [--undo] [--dry-run]
  runrootless [global flags] COMMAND ...
  runrootless bundle [flags] SOURCE DIR   a bundle of an image, a tar or a distribution
  runrootless emulate [--] [COMMAND ...]  root for a command of the host, as fakeroot has it
  runrootless commit [flags] BUNDLE IMAGE  an image of what a bundle has become
  runrootless export BUNDLE -|FILE        a tarball of its root file system
  runrootless doctor [--json]             what this host can do, and what would mend it

From an image to a container:
  runrootless bundle docker://debian:bookworm web
  runrootless run --bundle web CONTAINER

Global flags of its own, before the command:
  --runtime NAME_OR_PATH  the OCI runtime (default: $RUNROOTLESS_RUNTIME, runc, crun)
  --engine NAME           how root is emulated: notify, thorough, proot, zero, none or auto,
                          the best that this host can do (default: $RUNROOTLESS_ENGINE, the
                          bundle's annotation org.runrootless.engine, auto)
  --fast-path on|off      answer stat and the like in the programs themselves (default:
                          $RUNROOTLESS_FAST_PATH, the annotation org.runrootless.fast-path, off)

Flags of its own of run and create:
  --network NAME          host (default), none, pasta or slirp4netns
  --dns NAME              /etc/resolv.conf and /etc/hosts: copies of the host's (host, the
                          default) or the root file system's own (none)

setup writes what podman and buildah need to use it into ~/.config/containers.

run, create and exec take runc's flags; exec --user also takes names.  All other
commands and flags are the runtime's: see `runc --help`, `runc run --help` ...
"""
