# What shells say of how their jobs end has process IDs in it.
exec 2>/dev/null
trap 'echo usr1' USR1
trap 'echo term; code=9' TERM
kill -USR1 $$
kill -USR1 $$; kill -TERM $$
echo "code $code"
trap '' INT HUP
kill -INT $$; kill -HUP $$; echo survived
trap - TERM
(trap 'echo in a subshell; exit 3' USR2; sh -c 'kill -USR2 $PPID'; sleep 5); echo "exit $?"
sh -c 'kill -TERM $$'; echo "exit $?"
sh -c 'kill -ABRT $$' 2>/dev/null; echo "exit $?"
(trap 'echo at the end' EXIT; exit 4); echo "exit $?"
trap 'echo interrupted' ALRM
(sleep 0.2; kill -ALRM $$; sleep 1) & child=$!
wait; echo "wait is interrupted: $(($? > 128))"
wait $child; echo "exit $?"
kill -0 $$ && echo there
kill -0 $child 2>/dev/null || echo gone
trap 'echo bye' EXIT
