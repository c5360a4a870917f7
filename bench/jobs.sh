#!/bin/bash
# Does the job that is named and prints the seconds that it took; in the tree that work.py made.
# What prepares a job, and what tidies up after it, does not count.
set -euo pipefail
export HOME=/root LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
scratch=/srv/scratch
all=/srv/all

before() { :; }
after() { rm -rf "$scratch"; }

case $1 in
git-status)
    before() { git -C /srv/tree status >/dev/null; }
    job() { git -C /srv/tree status >/dev/null; }
    ;;
git-checkout)
    job() {
        git -C /srv/tree checkout -q other
        git -C /srv/tree checkout -q main
    }
    ;;
du) job() { du -s /usr >/dev/null; } ;;
find) job() { find / -xdev -ls >/dev/null; } ;;
ls) job() { ls -lR /usr >/dev/null; } ;;
busybox-du) job() { busybox du -s /usr >/dev/null; } ;;
busybox-find) job() { busybox find /usr -xdev -user nobody >/dev/null; } ;;
read) job() { find /srv/tree -type f -exec cat {} + >/dev/null; } ;;
tar-c)
    # To a pipe: to /dev/null tar does not read the files.
    job() { tar -C /srv -c tree | cat >/dev/null; }
    ;;
busybox-tar-c) job() { busybox tar -C /srv -c tree | cat >/dev/null; } ;;
tar-x)
    before() { mkdir "$scratch"; }
    job() { tar -C "$scratch" -xpf $all/tree.tar; }
    ;;
cp) job() { cp -a /srv/tree "$scratch"; } ;;
rsync) job() { rsync -a /srv/tree/ "$scratch"; } ;;
rm)
    before() { cp -r /srv/tree "$scratch"; }
    job() { rm -rf "$scratch"; }
    ;;
chown)
    before() { cp -r /srv/tree "$scratch"; }
    job() { chown -R 33:33 "$scratch"; }
    ;;
configure)
    before() { mkdir "$scratch"; }
    job() { (cd "$scratch" && /srv/configure/configure >/dev/null); }
    ;;
make)
    before() { cp -r /srv/make "$scratch"; }
    job() { make -s -j2 -C "$scratch"; }
    ;;
compileall)
    before() { cp -r /usr/lib/python3.11 "$scratch"; }
    job() { python3 -m compileall -q -f "$scratch" >/dev/null; }
    ;;
python)
    job() { for _ in {1..50}; do python3 -c pass; done; }
    ;;
pip) job() { python3 -m pip install --quiet --no-index --root-user-action=ignore --target "$scratch" $all/*.whl; } ;;
npm)
    before() { mkdir "$scratch"; }
    job() { (cd "$scratch" && npm install --silent --offline --no-audit --no-fund $all/package.tgz >/dev/null); }
    ;;
# Over the tree of so many files that performance.py has made.
find-in) job() { find "/srv/curve/$2" -ls >/dev/null; } ;;
du-in) job() { du -s "/srv/curve/$2" >/dev/null; } ;;
tar-in) job() { tar -C /srv/curve -c "$2" | cat >/dev/null; } ;;
*)
    echo "no such job: $1" >&2
    exit 2
    ;;
esac

rm -rf "$scratch"
before
began=${EPOCHREALTIME/./}
job "$@"
ended=${EPOCHREALTIME/./}
after
printf '%s\n' "$((ended - began))"
