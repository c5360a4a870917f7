job=0; sum=0; jobs=
while [ $job -lt $JOBS ]; do
    (exit $((job % 7))) & jobs="$jobs $!"
    job=$((job + 1))
done
for pid in $jobs; do wait $pid; sum=$((sum + $?)); done
echo "jobs $job sum $sum"
job=0
while [ $job -lt $JOBS ]; do
    /bin/true & job=$((job + 1))
done
wait; echo "exit $?"
job=0
while [ $job -lt 20 ]; do
    seq 1000 | tac | sort -n | tail -n 1 &
    job=$((job + 1))
done | sort | uniq -c | tr -s ' '
wait
