#!/bin/bash
# The package where no systemd runs, as in a container: install, use by hand, upgrade, remove, purge.
. "$(dirname "$0")/common.sh"
files >/tmp/before

step "install"
dpkg -i "$here/old.deb"
getent group conntrace >/dev/null || fail "no group"
getent passwd conntrace >/dev/null || fail "no user"
conntrace serve --check
man_pages=$(find /usr/share/man/man1 -name 'conntrace*.1*' | wc -l)
[ "$man_pages" -gt 5 ] || echo "note: dpkg leaves manuals out here ($man_pages)"

step "the daemon by hand"
CONNTRACE_TEST_BUILD=1 conntrace -v serve 2>/tmp/log &
daemon=$!
await get /v1/health
began=$(epoch)
knock 4711 10
expect_failed 4711 10
useradd --groups conntrace alice
useradd mallory
setpriv --reuid alice --regid alice --init-groups conntrace count >/dev/null || fail "a member of the group may not ask"
if setpriv --reuid mallory --regid mallory --init-groups conntrace count 2>/tmp/refused; then
    fail "a stranger may ask"
fi

step "upgrade beside the running daemon"
dpkg -i "$here/new.deb"
expect_failed 4711 10
knock 4711 5
kill "$daemon"
wait "$daemon" || fail "the daemon ended with status $?"
knock 4711 3
conntrace -v serve 2>/tmp/log &
daemon=$!
await get /v1/health
expect_failed 4711 18
[ "$(epoch)" = "$began" ] || fail "another epoch"
grep -q "the programs of the last daemon are replaced" /tmp/log || fail "not replaced: $(cat /tmp/log)"

step "remove"
# A daemon by hand is not the package's to end.
if dpkg -r conntrace 2>/tmp/refused; then
    fail "removed beside a running daemon"
fi
grep -q "stop it first" /tmp/refused || fail "no remedy: $(cat /tmp/refused)"
kill "$daemon"
wait "$daemon" || fail "the daemon ended with status $?"
[ -e /sys/fs/bpf/conntrace ] || fail "the counts ended with the daemon"
dpkg -r conntrace
[ ! -e /sys/fs/bpf/conntrace ] || fail "counting goes on"
[ -e /etc/conntrace/conntrace.toml ] || fail "the configuration is gone"

step "purge"
userdel alice
userdel mallory
dpkg -P conntrace
expect_nothing_left
echo "PASSED"
