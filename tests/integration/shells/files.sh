trap : CHLD
round=0
while [ $round -lt $ROUNDS ]; do
    /bin/true & /bin/true &
    echo $round >file || echo "write fails"
    echo more >>file || echo "append fails"
    read -r line <file || echo "read fails"
    [ "$line" = $round ] || echo "line $line"
    cat <<END >copy || echo "here document fails"
$round
END
    wait
    round=$((round + 1))
done 2>&1
echo "rounds $round"
