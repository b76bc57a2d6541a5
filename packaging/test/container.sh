#!/bin/bash
# The image in a container with the capabilities of the DaemonSet: container.sh DIRECTORY DAEMONSET, where DIRECTORY is that of
# the image. It answers, its counts survive the container, and they end with --detach.
set -eu
image=$1
capabilities=$(sed -n 's/.*add: \[\(.*\)\]/\1/p' "$2" | tr -d '" ')
work=$(mktemp -d)
runtime=$(command -v runc || command -v crun)
podman() {
    command podman --root "$work/root" --runroot "$work/run" --storage-driver vfs --cgroup-manager cgroupfs --runtime "$runtime" "$@"
}
end() {
    podman rm --force --all >/dev/null 2>&1 || true
    umount -l "$work/bpf" || true
    rm -rf "$work"
}
trap end EXIT
mkdir "$work/bpf" "$work/socket"
mount -t bpf -o mode=0700 bpf "$work/bpf"

fail() {
    echo "FAILED: $*"
    podman logs test || true
    exit 1
}

in_container() {
    # The most that this host allows.
    files=$(ulimit -Hn)
    podman run "$@" --network=host --pid=host --ulimit="nofile=$files:$files" --ulimit=nproc=1024:1024 --read-only \
        --security-opt=no-new-privileges --cap-drop=all --cap-add="$capabilities" \
        --volume "$work/bpf:/sys/fs/bpf" --volume /sys/fs/cgroup:/sys/fs/cgroup:ro --volume "$work/socket:/run/conntrace" \
        localhost/conntrace
}

get() {
    curl --silent --fail --unix-socket "$work/socket/conntrace.sock" "http://conntrace$1"
}

await_answer() {
    for _ in $(seq 100); do
        get /v1/health >/dev/null && return
        sleep 0.1
    done
    fail "no answer"
}

epoch() {
    get /v1/health | sed 's/.*"epoch":{\([^}]*\)}.*/\1/'
}

failed() {
    get "/v1/stats?dport=4711&output=csv" | awk -F , 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i } $at["direction"] == "out" { print $at["failed"] }'
}

knock() {
    for _ in $(seq "$1"); do
        (exec 3<>/dev/tcp/127.0.0.1/4711) 2>/dev/null || true
    done
}

podman build --quiet --isolation chroot --tag localhost/conntrace "$image"
in_container --detach --name test >/dev/null
await_answer
began=$(epoch)
before=$(failed)
knock 5
[ "$(failed)" = $((${before:-0} + 5)) ] || fail "$(failed) failed connections, before ${before:-0}"
podman exec test conntrace count --daemon
podman kill test >/dev/null
podman rm --force test >/dev/null
knock 3
in_container --detach --name test >/dev/null
await_answer
[ "$(failed)" = $((${before:-0} + 8)) ] || fail "$(failed) failed connections, before ${before:-0}"
[ "$(epoch)" = "$began" ] || fail "another epoch"
podman stop --time 5 test >/dev/null
podman rm test >/dev/null
[ -e "$work/bpf/conntrace" ] || fail "no pins"
echo "PASSED"
