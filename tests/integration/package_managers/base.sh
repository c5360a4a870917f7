# Makes ./repo, with what many.sh makes, and with what those packages require: for the database of
# a system that has it otherwise.
. /.package-managers/many.sh
cat >base.spec <<END
Name: base
Version: 1
Release: 1
Summary: What there is
License: none
BuildArch: noarch
Provides: /bin/sh, glibc
%description
None.
%files
END
rpm_build base.spec
mkdir -p repo; cp /srv/rpms/many-*.rpm repo; mv /srv/rpms/base-*.rpm repo; createrepo_c -q repo
