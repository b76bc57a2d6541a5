# Steps that both tests of the package share. The directory of this file also has old.deb and new.deb: the same program with
# another version, and the old one with programs that differ (CONNTRACE_TEST_BUILD).
set -eu
here=$(dirname "$0")
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

step() {
    echo "== $*"
}

fail() {
    echo "FAILED: $*"
    exit 1
}

# Runs a command until it succeeds, at most 60 seconds.
await() {
    tries=600
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "never true: $*"
        sleep 0.1
    done
}

# What the package must not leave behind: all files but those that each dpkg changes, and all users and groups.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /root -o -path /test \
        -o -path /mnt -o -path /var/cache -o -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/systemd \
        -o -path /var/tmp \) -prune -o -print | grep -v -e '^/etc/[a-z]*-$' -e '^/etc/.pwd.lock$' | sort
    find /run -path '*conntrace*' 2>/dev/null || true
    find /var/lib/dpkg/info /var/lib/systemd -path '*conntrace*' 2>/dev/null || true
    cut -d: -f1 /etc/passwd /etc/group /etc/shadow | sort
}

expect_nothing_left() {
    files >/tmp/after
    diff /tmp/before /tmp/after || fail "the package leaves this behind"
    [ ! -e /sys/fs/bpf/conntrace ] || fail "pins are left"
    [ ! -e /sys/fs/bpf/conntrace-streams ] || fail "pins of streams are left"
}

get() {
    curl --silent --show-error --fail --unix-socket /run/conntrace/conntrace.sock "http://conntrace$1"
}

# Opens and closes connections to a port of this host that nothing listens on: each is one that failed.
knock() {
    for _ in $(seq "$2"); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || true
    done
}

# How many outgoing connections to a port have failed since the epoch.
failed() {
    get "/v1/stats?dport=$1" | tr '{' '\n' | sed -n 's/.*"direction":"out".*"failed":\([0-9]*\).*/\1/p' | head -n 1
}

expect_failed() {
    found=$(failed "$1")
    [ "$found" = "$2" ] || fail "port $1 has ${found:-no} failed connections, not $2"
}

epoch() {
    get /v1/health | sed 's/.*"epoch":{\([^}]*\)}.*/\1/'
}
