#!/bin/bash
# The package under systemd as process 1.
. "$(dirname "$0")/common.sh"
trap 'code=$?; [ $code = 0 ] || journalctl --no-pager -u conntrace -n 40; echo "status $code" >/test/status; systemctl exit $code' EXIT
files >/tmp/before

step "install: disabled"
dpkg -i "$here/old.deb"
[ "$(systemctl is-enabled conntrace.service || true)" = disabled ] || fail "enabled by itself"
[ "$(systemctl is-active conntrace.service || true)" = inactive ] || fail "started by itself"
# The older build.
mkdir -p /run/systemd/system/conntrace.service.d
printf '[Service]\nEnvironment=CONNTRACE_TEST_BUILD=1\n' >/run/systemd/system/conntrace.service.d/build.conf
systemctl daemon-reload

step "two commands, then an ordinary user asks"
systemctl enable --now conntrace
[ "$(systemctl is-active conntrace.service)" = active ] || fail "not active"
useradd --groups conntrace alice
useradd mallory
as() {
    user=$1
    shift
    setpriv --reuid "$user" --regid "$user" --init-groups "$@"
}
knock 4711 10
expect_failed 4711 10
as alice conntrace count >/dev/null
as alice conntrace list -o table >/dev/null
as alice conntrace stats --total >/dev/null
as alice conntrace -e NEW --dport 22 --count 1 >/tmp/new &
events=$!
for _ in $(seq 200); do
    knock 22 1
    [ -s /tmp/new ] && break
    sleep 0.05
done
wait "$events" || fail "no event"
grep -q NEW /tmp/new || fail "no NEW: $(cat /tmp/new)"
if as mallory conntrace count 2>/dev/null; then
    fail "a stranger may ask"
fi

step "the journal has fields"
journalctl --sync || true
kill -KILL "$(pgrep -f '^conntrace front')"
await journalctl -q --no-pager -u conntrace --grep 'is started again' CONNTRACE_PART=back PRIORITY=4
journalctl -q --no-pager -u conntrace -o json CONNTRACE_PART=back | grep -q '"CONNTRACE_EPOCH"' || fail "no epoch"
await get /v1/health

step "reload"
began=$(epoch)
pid=$(systemctl show --value -p MainPID conntrace)
echo 'clients_per_user = 9' >>/etc/conntrace/conntrace.toml
systemctl reload conntrace
await journalctl -q --no-pager -u conntrace --grep 'was read again'
[ "$(systemctl show --value -p MainPID conntrace)" = "$pid" ] || fail "another process"
sed -i '$d' /etc/conntrace/conntrace.toml

step "a stream goes on when the daemon is killed or upgraded"
as alice conntrace events -e DESTROY --direction out --dport 4712,4713 >/tmp/stream 2>/tmp/stream.err &
stream=$!
for _ in $(seq 200); do
    knock 4712 1
    grep -q 'dport=4712 ' /tmp/stream && break
    sleep 0.05
done
# Of the stream: those that it has to show.
streamed() {
    [ "$(grep -c 'dport=4713 ' /tmp/stream)" = "$1" ]
}

step "kill -9: started again, and no count lost"
kill -KILL "$pid"
knock 4711 5
knock 4713 5
is_another() {
    now=$(systemctl show --value -p MainPID conntrace)
    [ "$now" != 0 ] && [ "$now" != "$pid" ]
}
await is_another
await get /v1/health
expect_failed 4711 15
await streamed 5
[ "$(epoch)" = "$began" ] || fail "another epoch"

step "watchdog: a daemon that stands still is started again"
printf '[Service]\nWatchdogSec=4\n' >/run/systemd/system/conntrace.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart conntrace
pid=$(systemctl show --value -p MainPID conntrace)
kill -STOP "$pid"
await is_another
await get /v1/health
expect_failed 4711 15
rm /run/systemd/system/conntrace.service.d/watchdog.conf

step "upgrade: another build, no count lost"
rm /run/systemd/system/conntrace.service.d/build.conf
systemctl daemon-reload
dpkg -i "$here/new.deb"
await get /v1/health
knock 4711 2
expect_failed 4711 17
knock 4713 2
await streamed 7
pkill -INT -u alice -f 'conntrace events'
wait "$stream" || fail "the stream ended with status $?: $(cat /tmp/stream.err)"
grep -q 'lost 0: holds' /tmp/stream.err || fail "the stream has losses: $(cat /tmp/stream.err)"
[ "$(epoch)" = "$began" ] || fail "another epoch"

step "stop: within a second, and the counts go on"
before=$(date +%s%N)
systemctl stop conntrace.service
took=$((($(date +%s%N) - before) / 1000000))
echo "stopped in $took ms"
[ "$took" -lt 1000 ] || fail "more than a second"
[ "$(systemctl show --value -p Result conntrace)" = success ] || fail "$(systemctl status conntrace)"
knock 4711 1

step "socket activation"
# The steps above start the service more often than systemd allows in ten seconds (StartLimitBurst=).
systemctl reset-failed conntrace.service
systemctl start conntrace.socket
as alice conntrace count >/dev/null
[ "$(systemctl is-active conntrace.service)" = active ] || fail "not activated"
expect_failed 4711 18
systemctl restart conntrace.service
as alice conntrace count >/dev/null || fail "the socket is gone after a restart"
systemctl stop conntrace.service
as alice conntrace count >/dev/null || fail "not activated again"

step "remove and purge"
userdel alice
userdel mallory
dpkg -r conntrace
[ "$(systemctl is-active conntrace.service || true)" != active ] || fail "still active"
[ ! -e /sys/fs/bpf/conntrace ] || fail "counting goes on"
dpkg -P conntrace
rm -rf /run/systemd/system/conntrace.service.d
expect_nothing_left
echo "PASSED"
