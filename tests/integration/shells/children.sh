round=0
while [ $round -lt $ROUNDS ]; do
    sleep 100 & a=$!
    sleep 100 & b=$!
    sleep 100 & c=$!
    kill $a $b $c || echo "kill fails"
    wait $a; x=$?; wait $b; y=$?; wait $c; z=$?
    [ "$x $y $z" = "143 143 143" ] || echo "exit $x $y $z"
    round=$((round + 1))
done 2>/dev/null
echo "rounds $round"
