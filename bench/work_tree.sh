#!/bin/bash
# Makes, in the root file system where it is run, what the jobs of jobs.sh work on.
set -euo pipefail
export HOME=/root
mkdir /srv/tree /srv/make /srv/configure /srv/all

cd /srv/tree
git init -q -b main
git config user.name bench
git config user.email bench@localhost
# Which would run on beside the last line.
git config gc.auto 0
for directory in {1..200}; do
    mkdir "d$directory"
    for file in {1..100}; do
        echo "$directory $file" >"d$directory/f$file"
    done
done
git add .
git commit -qm first
git checkout -qb other
for directory in {1..40}; do
    for file in {1..100}; do
        echo changed >"d$directory/f$file"
    done
done
git commit -qam second
git checkout -q main
git gc -q
# One file in ten has a record.
chown -R www-data:mail d{1..20}
tar -C /srv -cf /srv/all/tree.tar tree

cd /srv/make
for file in {1..60}; do
    printf '#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint f%s(void) { return puts("x"); }\n' \
        "$file" >"f$file.c"
done
printf 'all: %s\n' "$(printf 'f%s.o ' {1..60})" >Makefile

cd /srv/configure
{
    echo 'AC_INIT([bench], [1])'
    echo 'AC_PROG_CC'
    for header in dirent fcntl float limits locale math netdb poll pwd regex sched setjmp signal stdio syslog termios; do
        echo "AC_CHECK_HEADERS([$header.h])"
    done
    for function in alarm atexit bzero dup2 fork getcwd gethostname getpagesize gettimeofday memchr memset mkdir; do
        echo "AC_CHECK_FUNCS([$function])"
    done
    echo 'AC_OUTPUT'
} >configure.ac
autoconf

cd /srv/all
mkdir -p package/lib
echo '{"name": "package", "version": "1.0.0"}' >package/package.json
for file in {1..2000}; do
    echo "module.exports = $file" >"package/lib/f$file.js"
done
tar -czf package.tgz package
rm -r package
python3 - <<'PYTHON'
import zipfile
with zipfile.ZipFile("package-1.0-py3-none-any.whl", "w") as wheel:
    names = [f"package/m{number}.py" for number in range(2000)]
    for name in names:
        wheel.writestr(name, "x = 1\n")
    info = "package-1.0.dist-info"
    wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: package\nVersion: 1.0\n")
    wheel.writestr(
        f"{info}/WHEEL",
        "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    )
    wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in names))
PYTHON
