# Makes the packages many-1-1 and many-2-1 below /srv/rpms, once.
spec() {
    cat <<END
Name: many
Version: $1
Release: 1
Summary: Files of many owners
License: none
BuildArch: noarch
AutoReqProv: no
%description
None.
%install
d=%{buildroot}/opt/many
mkdir -p \$d/shared \$d/empty %{buildroot}/etc %{buildroot}/usr/lib/sysusers.d
for name in plain setuid setgid both capable sticky; do echo $1 >\$d/\$name; done
ln -s plain \$d/link; ln \$d/setuid \$d/hard
echo $1 >%{buildroot}/etc/many.conf; echo $1 >%{buildroot}/etc/many-kept.conf; echo $1 >%{buildroot}/etc/many-old.conf
echo 'u many-sys 345 "of sysusers" /opt/many' >%{buildroot}/usr/lib/sysusers.d/many.conf
%pre
[ -n "\$(getent group many-g)" ] || groupadd -g 2345 many-g
[ -n "\$(getent passwd many-u)" ] || useradd -u 1234 -g many-g -d /opt/many -M many-u
echo "pre \$1 \$(id -u):\$(id -g)" >>/var/log/many
%post
systemd-sysusers /usr/lib/sysusers.d/many.conf
touch /opt/many/state; chown many-sys:many-g /opt/many/state; chmod 2640 /opt/many/state
su many-u -s /bin/sh -c 'touch /opt/many/shared/by-user; id -un' >>/var/log/many
echo "post \$1" >>/var/log/many
%preun
echo "preun \$1 \$(stat -c %U /opt/many/state)" >>/var/log/many; [ \$1 != 0 ] || rm -f /opt/many/state /opt/many/shared/by-user
%postun
echo "postun \$1" >>/var/log/many; [ \$1 != 0 ] || { userdel many-u; userdel many-sys; groupdel many-g 2>/dev/null; } 
%files
%defattr(-, root, root)
%dir /opt/many
%attr(3775, many-u, many-g) %dir /opt/many/shared
%attr(700, daemon, mail) %dir /opt/many/empty
%attr($2, $3, $4) /opt/many/plain
%attr(4755, daemon, root) /opt/many/setuid
%attr(4755, daemon, root) /opt/many/hard
%attr(2755, root, mail) /opt/many/setgid
%attr(6711, many-u, many-g) /opt/many/both
%attr(1644, root, root) /opt/many/sticky
%attr(755, root, root) %caps(cap_net_raw,cap_chown=ep) /opt/many/capable
%attr(777, games, mail) /opt/many/link
%attr(640, root, mail) %config /etc/many.conf
%attr(600, many-u, root) %config(noreplace) /etc/many-kept.conf
%attr(604, root, root) %config /etc/many-old.conf
%attr(0666, root, mail) %dev(c, 1, 3) /opt/many/null
%attr(0640, daemon, mail) %dev(c, 1, 5) /opt/many/zero
%attr(0620, many-u, many-g) %dev(c, 1, 9) /opt/many/urandom
%ghost %attr(640, many-u, many-g) /opt/many/log
/usr/lib/sysusers.d/many.conf
END
}
export SOURCE_DATE_EPOCH=1700000000
rpm_build() {
    rpmbuild --quiet -bb --define "_topdir $PWD/b" --define "clamp_mtime_to_source_date_epoch 1" "$1" 2>&1 |
        grep -v -e '^warning: ' -e 'file: not found'
    mkdir -p /srv/rpms; mv b/RPMS/*/*.rpm /srv/rpms
}
[ -e /srv/rpms/many-2-1.noarch.rpm ] || {
    spec 1 644 root root >1.spec; spec 2 4750 many-u many-g >2.spec
    rpm_build 1.spec; rpm_build 2.spec
}
rm -f /var/log/many
