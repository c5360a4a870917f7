set -m
sleep 100 & sleep 100 &
kill %1; wait %1; echo "exit $?"
kill -KILL %2; wait %2; echo "exit $?"
sh -c 'kill -STOP $$; echo goes on; exit 5' & job=$!
until read -r line </proc/$job/stat; case $line in *") T "*) ;; *) false ;; esac; do :; done
fg >/dev/null; echo "exit $?"
sh -c 'kill -STOP $$; exit 6'; echo "stopped: $(($? > 128))"
bg >/dev/null; wait; echo "bg is over"
sh -c 'sleep 100 & sleep 100 & kill 0; wait'; echo "exit $?"
(trap 'echo group; exit 7' TERM; sh -c 'kill -TERM -$(ps -o pgid= -p $$ | tr -d " ")'; sleep 3); echo "exit $?"
[ -t 0 ] && echo "a terminal"
