# Makes the directory t, with a file of each kind.
mkdir -p t/shared t/empty; cd t
for name in plain setuid setgid both capable sticky listed; do echo $name >$name; done; : >none
dd if=/dev/zero of=sparse bs=1 count=1 seek=1M 2>/dev/null
ln -s plain link; ln setuid hard; mkfifo fifo; mknod null c 1 3; mknod zero c 1 5; mknod disk b 7 200; mknod other c 200 9
chown 1234:2345 shared both other; chmod 3775 shared; chmod 6711 both; chmod 620 other; chown 4294967294:4294967293 none
chown 1:8 empty; chmod 700 empty; chown 1:0 setuid; chmod 4755 setuid; chown 0:8 setgid null disk; chmod 2755 setgid; chmod 1644 sticky; chmod 660 disk; chmod 666 null
chown -h 5:8 link; chown 5:8 fifo; chmod 640 fifo; chown 7:7 zero
setcap cap_net_raw+ep capable; setfacl -m u:1234:r,g:8:rw listed; setfacl -d -m u:5:rwx shared; setfattr -n user.a -v b plain; setfattr -n trusted.c -v d plain
find . -exec touch -hd @1000000000 {} +; cd ..
times() { find . -mindepth 1 -exec stat -c '%n %Y' {} + | sed 's/ 1000000000$/ kept/; s/ [0-9]*$/ other/'; }
same() { echo "-- $1: $?"; (cd t; list .; times) >a; (cd $2; list .; times) >b; diff a b; }
(cd t; list .)
