#!/bin/sh
# The first and only program of a guest: loads the drivers, then runs commands that come by the second
# serial port. A request is a line "number command", an answer a line "number status output"; command and
# output are base64 (cdna/vm/agent.py). Commands run beside each other; answers are never mixed.

export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /tmp
mount -t tmpfs -o size=90% tmpfs /tmp
while read -r module; do insmod "/modules/$module"; done </modules/order
ip link set lo up
hostname "$(sed -n 's/.*hostname=\([^ ]*\).*/\1/p' /proc/cmdline)"

# Commands say by a pipe that they are done, and one process answers for all of them.
mkfifo /tmp/.done
while read -r number status; do
    printf '\n%s %s %s\n' "$number" "$status" "$(base64 -w 0 <"/tmp/.output.$number")"
    rm "/tmp/.output.$number"
done <>/tmp/.done >/dev/ttyS1 &

execute() {
    sh -c "$(echo "$2" | base64 -d)" >"/tmp/.output.$1" 2>&1 </dev/null
    echo "$1 $?" >/tmp/.done
}

stty -F /dev/ttyS1 raw -echo
exec 8</dev/ttyS1
cat /proc/version >/tmp/.output.0
echo "0 0" >/tmp/.done
while :; do
    while read -r number command <&8; do
        [ -n "$command" ] && execute "$number" "$command" 8<&- &
    done
done
