#!/bin/sh
# Runs a command in a plain chroot of the real root that is furnished as an OCI
# runtime furnishes a container: chroot.sh ROOT COMMAND...
# Started in mount, pid, uts and ipc namespaces of its own.
set -eu
root=$1
shift
hostname runc
mount --bind "$root" "$root"
cd "$root"
mkdir -p proc dev sys
mount -t proc proc proc
mount -t tmpfs -o nosuid,strictatime,mode=755,size=65536k tmpfs dev
mount -t sysfs -o nosuid,noexec,nodev,ro sysfs sys
umask 0
for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
    # shellcheck disable=SC2086 # two words
    mknod -m 0666 dev/${node%% *} c ${node#* }
done
umask 022
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620${TTY_GID-,gid=5}" devpts dev/pts
mount -t tmpfs -o nosuid,noexec,nodev,mode=1777,size=65536k shm dev/shm
mount -t mqueue -o nosuid,noexec,nodev mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
# shellcheck disable=SC3045 # dash has it
ulimit -n 1024
exec env -u PWD -u OLDPWD chroot . "$@"
