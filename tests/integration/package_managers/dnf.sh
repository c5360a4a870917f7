# Installs, changes and removes what many.sh makes by $dnf, dnf or dnf5.
. /.package-managers/common; . /.package-managers/base.sh
dnf() { command $dnf -y -q --repofrompath=test,file://$PWD/repo --repo=test --nogpgcheck --setopt=keepcache=0 "$@" >log 2>&1; code=$?; [ $code = 0 ] || grep . log; return $code; }
state() { echo "-- $1: $?"; list /opt/many /etc/many* /usr/lib/sysusers.d/many.conf; rpm -q many; rpm -V --nodeps many; getent passwd many-u many-sys; }
dnf install many-1; state installed
echo changed >/etc/many.conf; echo changed >/etc/many-kept.conf
dnf reinstall many; state again
dnf upgrade many; state upgraded
dnf downgrade many; state downgraded
dnf upgrade; state upgraded
dnf history undo last; state undone
dnf remove many; state removed
dnf autoremove base; rpm -qa; cat /var/log/many; rm -f /etc/many*
