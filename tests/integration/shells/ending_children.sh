trap : CHLD
round=0
while [ $round -lt $ROUNDS ]; do
    /bin/true & /bin/true &
    cd /usr || echo "cd fails"
    cd - >/dev/null || echo "cd back fails"
    [ -d /etc ] || echo "test fails"
    read -r line </etc/hostname || echo "read fails"
    # While bash 5.2 reads what is in $(), a trap breaks its parser, with real root as well.
    text=`echo inner | cat` || echo "substitution fails"
    [ "$text" = inner ] || echo "text $text"
    echo a | cat | (read -r x; [ "$x" = a ]) || echo "pipeline fails"
    umask 022 || echo "umask fails"
    wait
    round=$((round + 1))
done 2>&1
echo "rounds $round"
