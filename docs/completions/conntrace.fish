# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_conntrace_global_optspecs
    string join \n v/verbose e/event-mask= count= timeout= b/buffer-size= strict summary o/output= columns= no-header color= utc n/numeric resolve p/proto= s/src= d/dst= r/reply-src= q/reply-dst= dport= sport= reply-port-src= reply-port-dst= state= direction= f/family= pid= comm= uid= netns= cgroup= container= unit= user-unit= witnesses= accept-hook= h/help V/version
end

function __fish_conntrace_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_conntrace_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_conntrace_using_subcommand
    set -l cmd (__fish_conntrace_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c conntrace -n "__fish_conntrace_needs_command" -s e -l event-mask -d 'Only these kinds of events: NEW (attempt), UPDATES (state change), DESTROY (end) or ALL. In any case, shortened at will' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l count -d 'End after N events' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l timeout -d 'End after this time: 20s, 1m30s, 500ms; a plain number is in seconds' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s b -l buffer-size -d 'Room for events that wait to be printed, rounded up to a power of two: 65536, 512K, 64M [default: 8M]' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s o -l output -d 'conntrack (the default), table, json, csv, logfmt, xml, save, json-otel or json-ecs. As in conntrack also timestamp, id, extended and ktimestamp, which add to its line and to xml' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l columns -d 'Which columns of table, csv, logfmt and json: names, or all; +NAME adds to the usual ones. `conntrace help formats` has them' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l color -d 'Colours: auto is on a terminal, unless `NO_COLOR` is set' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c conntrace -n "__fish_conntrace_needs_command" -s p -l proto -d 'Only this protocol: tcp (or 6), the only one there is' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s s -l src -l orig-src -d 'Only these initiators: addresses and prefixes, or a list of such. ! takes out: \'!10.0.0.0/8\'' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s d -l dst -l orig-dst -d 'Only these responders' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s r -l reply-src -d 'The sources of replies: what --dst is, since sockets know no NAT' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s q -l reply-dst -d 'The destinations of replies: what --src is' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l dport -l orig-port-dst -d 'Only these service ports, the responder\'s: 22, ssh, 8000-8099, \'!22\', or a list of such' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l sport -l orig-port-src -d 'Only these source ports, the initiator\'s' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l reply-port-src -d 'The source ports of replies: what --dport is' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l reply-port-dst -d 'The destination ports of replies: what --sport is' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l state -d 'Only in these states: established, syn-sent, … or connected, synchronized, bucket, big' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l direction -d 'Only connections that others opened to us (in), or that we opened (out)' -r -f -a "in\t'The peer'
out\t'This host'"
complete -c conntrace -n "__fish_conntrace_needs_command" -s f -l family -d 'Only this address family. An IPv4 address on an IPv6 socket is IPv4' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_needs_command" -l pid -d 'Only these owners, by process id' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l comm -d 'Only owners of this name; - for owners that are not known' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l uid -d 'Only owners of these users, by name or number' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l netns -d 'Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l cgroup -d 'Only owners in this cgroup itself, by its path below the cgroup v2 root' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l container -d 'Only owners in these containers: names, ids, first digits of ids, or patterns like \'web*\'. NAME@USER is a container of a user\'s runtime, NAME@* one of any user\'s' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l unit -d 'Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, \'php*\'' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l user-unit -d 'Only owners in these units or slices of a user\'s own service manager (systemctl --user)' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l witnesses -d 'Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`, `sock_ops`, `destroy_sock`' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l accept-hook -d 'Use this hook to see who accepts a connection, to compare them: `graft`, `function`, `syscalls`' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s v -l verbose -d 'Tell more on standard error: what was found here, what follows from it, and the size of the programs; twice: the programs\' own log lines, too'
complete -c conntrace -n "__fish_conntrace_needs_command" -l strict -d 'End with status 3 if an event was lost, or if the kernel programs had no memory or no room for something'
complete -c conntrace -n "__fish_conntrace_needs_command" -l summary -d 'Tell at the end what happened per service port, on standard error: the report of `stats`, with what is open now'
complete -c conntrace -n "__fish_conntrace_needs_command" -l no-header -d 'No line with the names of the columns in table and csv'
complete -c conntrace -n "__fish_conntrace_needs_command" -l utc -d 'Times for people in UTC instead of local time. Machines always get UTC'
complete -c conntrace -n "__fish_conntrace_needs_command" -s n -l numeric -d 'Numbers instead of names in tables: 22, not ssh. Takes back --resolve; of the two the last counts'
complete -c conntrace -n "__fish_conntrace_needs_command" -l resolve -d 'Names of addresses, by /etc/hosts and DNS: in tables instead of them, elsewhere as `src_name` and `dst_name`. No event waits for a name: what is not known yet is shown by its address, and asked for. `list` waits for two seconds at most'
complete -c conntrace -n "__fish_conntrace_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_needs_command" -s V -l version -d 'Print version'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "events" -d 'Print events as they happen, until Ctrl-C (the default; -E as in conntrack)'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "count" -d 'Print how many connections are open now (-C as in conntrack)'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "list" -d 'Print what is open now, and who has it (-L as in conntrack)'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "life" -d 'Print each connection when it ends: how long it was, whose, and why'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "stats" -d 'Count what happens per service port, and prove it (-S as in conntrack)'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "doctor" -d 'Tell what this host has, what follows from it, and whether it works'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "help" -d 'Explain a command, filters, formats, states or exactness'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "completions" -d 'Print the completions for a shell'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s e -l event-mask -d 'Only these kinds of events: NEW (attempt), UPDATES (state change), DESTROY (end) or ALL. In any case, shortened at will' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l count -d 'End after N events' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l timeout -d 'End after this time: 20s, 1m30s, 500ms; a plain number is in seconds' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s b -l buffer-size -d 'Room for events that wait to be printed, rounded up to a power of two: 65536, 512K, 64M [default: 8M]' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s o -l output -d 'conntrack (the default), table, json, csv, logfmt, xml, save, json-otel or json-ecs. As in conntrack also timestamp, id, extended and ktimestamp, which add to its line and to xml' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l columns -d 'Which columns of table, csv, logfmt and json: names, or all; +NAME adds to the usual ones. `conntrace help formats` has them' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l color -d 'Colours: auto is on a terminal, unless `NO_COLOR` is set' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s p -l proto -d 'Only this protocol: tcp (or 6), the only one there is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s s -l src -l orig-src -d 'Only these initiators: addresses and prefixes, or a list of such. ! takes out: \'!10.0.0.0/8\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s d -l dst -l orig-dst -d 'Only these responders' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s r -l reply-src -d 'The sources of replies: what --dst is, since sockets know no NAT' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s q -l reply-dst -d 'The destinations of replies: what --src is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l dport -l orig-port-dst -d 'Only these service ports, the responder\'s: 22, ssh, 8000-8099, \'!22\', or a list of such' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l sport -l orig-port-src -d 'Only these source ports, the initiator\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l reply-port-src -d 'The source ports of replies: what --dport is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l reply-port-dst -d 'The destination ports of replies: what --sport is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l state -d 'Only in these states: established, syn-sent, … or connected, synchronized, bucket, big' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l direction -d 'Only connections that others opened to us (in), or that we opened (out)' -r -f -a "in\t'The peer'
out\t'This host'"
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s f -l family -d 'Only this address family. An IPv4 address on an IPv6 socket is IPv4' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l pid -d 'Only these owners, by process id' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l comm -d 'Only owners of this name; - for owners that are not known' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l uid -d 'Only owners of these users, by name or number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l netns -d 'Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l cgroup -d 'Only owners in this cgroup itself, by its path below the cgroup v2 root' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l container -d 'Only owners in these containers: names, ids, first digits of ids, or patterns like \'web*\'. NAME@USER is a container of a user\'s runtime, NAME@* one of any user\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l unit -d 'Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, \'php*\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l user-unit -d 'Only owners in these units or slices of a user\'s own service manager (systemctl --user)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l witnesses -d 'Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`, `sock_ops`, `destroy_sock`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l accept-hook -d 'Use this hook to see who accepts a connection, to compare them: `graft`, `function`, `syscalls`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l strict -d 'End with status 3 if an event was lost, or if the kernel programs had no memory or no room for something'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l summary -d 'Tell at the end what happened per service port, on standard error: the report of `stats`, with what is open now'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l no-header -d 'No line with the names of the columns in table and csv'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l utc -d 'Times for people in UTC instead of local time. Machines always get UTC'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s n -l numeric -d 'Numbers instead of names in tables: 22, not ssh. Takes back --resolve; of the two the last counts'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l resolve -d 'Names of addresses, by /etc/hosts and DNS: in tables instead of them, elsewhere as `src_name` and `dst_name`. No event waits for a name: what is not known yet is shown by its address, and asked for. `list` waits for two seconds at most'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s v -l verbose -d 'Tell more on standard error: what was found here, what follows from it, and the size of the programs; twice: the programs\' own log lines, too'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l by -d 'Group the count by one or more of these keys: a table, the largest group first' -r -f -a "port\t'Service port'
state\t'TCP state'
direction\t'Who opened it'
netns\t'Network namespace, by its inode number'
src\t'Address of the initiator'
dst\t'Address of the responder'
peer\t'Address of the other end'
comm\t'Name of the process that holds the socket'
pid\t'Process that holds the socket'
uid\t'User of that process'
container\t'Container of that process'
unit\t'systemd unit of that process'"
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l top -d 'Print only the N largest groups. Standard error counts the others' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s o -l output -d 'How to print' -r -f -a "table\t'Aligned columns for people'
json\t'One JSON object'
csv\t'Comma-separated values with a header line'"
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s p -l proto -d 'Only this protocol: tcp (or 6), the only one there is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s s -l src -l orig-src -d 'Only these initiators: addresses and prefixes, or a list of such. ! takes out: \'!10.0.0.0/8\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s d -l dst -l orig-dst -d 'Only these responders' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s r -l reply-src -d 'The sources of replies: what --dst is, since sockets know no NAT' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s q -l reply-dst -d 'The destinations of replies: what --src is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l dport -l orig-port-dst -d 'Only these service ports, the responder\'s: 22, ssh, 8000-8099, \'!22\', or a list of such' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l sport -l orig-port-src -d 'Only these source ports, the initiator\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l reply-port-src -d 'The source ports of replies: what --dport is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l reply-port-dst -d 'The destination ports of replies: what --sport is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l state -d 'Only in these states: established, syn-sent, … or connected, synchronized, bucket, big' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l direction -d 'Only connections that others opened to us (in), or that we opened (out)' -r -f -a "in\t'The peer'
out\t'This host'"
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s f -l family -d 'Only this address family. An IPv4 address on an IPv6 socket is IPv4' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l pid -d 'Only these owners, by process id' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l comm -d 'Only owners of this name; - for owners that are not known' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l uid -d 'Only owners of these users, by name or number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l netns -d 'Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l cgroup -d 'Only owners in this cgroup itself, by its path below the cgroup v2 root' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l container -d 'Only owners in these containers: names, ids, first digits of ids, or patterns like \'web*\'. NAME@USER is a container of a user\'s runtime, NAME@* one of any user\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l unit -d 'Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, \'php*\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l user-unit -d 'Only owners in these units or slices of a user\'s own service manager (systemctl --user)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l exit-code -d 'End with status 1 if nothing was found, as grep does, and with status 2 after an error'
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s n -l numeric -d 'Numbers of ports instead of names in tables: 22, not ssh'
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s v -l verbose -d 'Tell more on standard error: what was found here, what follows from it, and the size of the programs; twice: the programs\' own log lines, too'
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l min-age -d 'Only connections that are certainly so old: 5s, 2h' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l sort -d 'The largest first: age, bytes, rtt, retransmits, queue; or by port or pid' -r -f -a "age\t'The oldest first'
bytes\t'The most bytes, both ways, first'
rtt\t'The longest round trip first'
retransmits\t'The most retransmissions first'
queue\t'The fullest queue, either way, first'
port\t'By service port'
pid\t'By process'"
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s o -l output -d 'conntrack (the default), table, json, csv, logfmt, xml, save, json-otel or json-ecs. As in conntrack also timestamp, id, extended and ktimestamp, which add to its line and to xml' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l columns -d 'Which columns of table, csv, logfmt and json: names, or all; +NAME adds to the usual ones. `conntrace help formats` has them' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l color -d 'Colours: auto is on a terminal, unless `NO_COLOR` is set' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s p -l proto -d 'Only this protocol: tcp (or 6), the only one there is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s s -l src -l orig-src -d 'Only these initiators: addresses and prefixes, or a list of such. ! takes out: \'!10.0.0.0/8\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s d -l dst -l orig-dst -d 'Only these responders' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s r -l reply-src -d 'The sources of replies: what --dst is, since sockets know no NAT' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s q -l reply-dst -d 'The destinations of replies: what --src is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l dport -l orig-port-dst -d 'Only these service ports, the responder\'s: 22, ssh, 8000-8099, \'!22\', or a list of such' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l sport -l orig-port-src -d 'Only these source ports, the initiator\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l reply-port-src -d 'The source ports of replies: what --dport is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l reply-port-dst -d 'The destination ports of replies: what --sport is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l state -d 'Only in these states: established, syn-sent, … or connected, synchronized, bucket, big' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l direction -d 'Only connections that others opened to us (in), or that we opened (out)' -r -f -a "in\t'The peer'
out\t'This host'"
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s f -l family -d 'Only this address family. An IPv4 address on an IPv6 socket is IPv4' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l pid -d 'Only these owners, by process id' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l comm -d 'Only owners of this name; - for owners that are not known' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l uid -d 'Only owners of these users, by name or number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l netns -d 'Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l cgroup -d 'Only owners in this cgroup itself, by its path below the cgroup v2 root' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l container -d 'Only owners in these containers: names, ids, first digits of ids, or patterns like \'web*\'. NAME@USER is a container of a user\'s runtime, NAME@* one of any user\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l unit -d 'Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, \'php*\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l user-unit -d 'Only owners in these units or slices of a user\'s own service manager (systemctl --user)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s l -l listening -d 'Sockets that wait for connections instead, with how many wait to be accepted and how many may'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l dump -d 'conntrack\'s lines on a terminal, too: `-L` of conntrack'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l exit-code -d 'End with status 1 if nothing was found, as grep does, and with status 2 after an error'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l no-header -d 'No line with the names of the columns in table and csv'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l utc -d 'Times for people in UTC instead of local time. Machines always get UTC'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s n -l numeric -d 'Numbers instead of names in tables: 22, not ssh. Takes back --resolve; of the two the last counts'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l resolve -d 'Names of addresses, by /etc/hosts and DNS: in tables instead of them, elsewhere as `src_name` and `dst_name`. No event waits for a name: what is not known yet is shown by its address, and asked for. `list` waits for two seconds at most'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s v -l verbose -d 'Tell more on standard error: what was found here, what follows from it, and the size of the programs; twice: the programs\' own log lines, too'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l min -d 'Only connections that lasted at least so long: 5s, 1m30s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l max -d 'Only connections that lasted at most so long' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l top -d 'At the end the N largest, instead of all as they end' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l sort -d 'What makes them large: lifetime (the default), handshake, bytes, rtt or retransmits. Without --top, the first 20' -r -f -a "lifetime\t'From the attempt to the end'
handshake\t'From the attempt to the end of the handshake'
bytes\t'Bytes both ways'
rtt\t'Smoothed round trip time'
retransmits\t'Segments retransmitted'"
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l count -d 'End after N events' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l timeout -d 'End after this time: 20s, 1m30s, 500ms; a plain number is in seconds' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s b -l buffer-size -d 'Room for events that wait to be printed, rounded up to a power of two: 65536, 512K, 64M [default: 8M]' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s o -l output -d 'conntrack (the default), table, json, csv, logfmt, xml, save, json-otel or json-ecs. As in conntrack also timestamp, id, extended and ktimestamp, which add to its line and to xml' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l columns -d 'Which columns of table, csv, logfmt and json: names, or all; +NAME adds to the usual ones. `conntrace help formats` has them' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l color -d 'Colours: auto is on a terminal, unless `NO_COLOR` is set' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s p -l proto -d 'Only this protocol: tcp (or 6), the only one there is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s s -l src -l orig-src -d 'Only these initiators: addresses and prefixes, or a list of such. ! takes out: \'!10.0.0.0/8\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s d -l dst -l orig-dst -d 'Only these responders' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s r -l reply-src -d 'The sources of replies: what --dst is, since sockets know no NAT' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s q -l reply-dst -d 'The destinations of replies: what --src is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l dport -l orig-port-dst -d 'Only these service ports, the responder\'s: 22, ssh, 8000-8099, \'!22\', or a list of such' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l sport -l orig-port-src -d 'Only these source ports, the initiator\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l reply-port-src -d 'The source ports of replies: what --dport is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l reply-port-dst -d 'The destination ports of replies: what --sport is' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l state -d 'Only in these states: established, syn-sent, … or connected, synchronized, bucket, big' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l direction -d 'Only connections that others opened to us (in), or that we opened (out)' -r -f -a "in\t'The peer'
out\t'This host'"
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s f -l family -d 'Only this address family. An IPv4 address on an IPv6 socket is IPv4' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l pid -d 'Only these owners, by process id' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l comm -d 'Only owners of this name; - for owners that are not known' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l uid -d 'Only owners of these users, by name or number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l netns -d 'Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l cgroup -d 'Only owners in this cgroup itself, by its path below the cgroup v2 root' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l container -d 'Only owners in these containers: names, ids, first digits of ids, or patterns like \'web*\'. NAME@USER is a container of a user\'s runtime, NAME@* one of any user\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l unit -d 'Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, \'php*\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l user-unit -d 'Only owners in these units or slices of a user\'s own service manager (systemctl --user)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l witnesses -d 'Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`, `sock_ops`, `destroy_sock`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l accept-hook -d 'Use this hook to see who accepts a connection, to compare them: `graft`, `function`, `syscalls`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l strict -d 'End with status 3 if an event was lost, or if the kernel programs had no memory or no room for something'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l no-header -d 'No line with the names of the columns in table and csv'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l utc -d 'Times for people in UTC instead of local time. Machines always get UTC'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s n -l numeric -d 'Numbers instead of names in tables: 22, not ssh. Takes back --resolve; of the two the last counts'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l resolve -d 'Names of addresses, by /etc/hosts and DNS: in tables instead of them, elsewhere as `src_name` and `dst_name`. No event waits for a name: what is not known yet is shown by its address, and asked for. `list` waits for two seconds at most'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s v -l verbose -d 'Tell more on standard error: what was found here, what follows from it, and the size of the programs; twice: the programs\' own log lines, too'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l interval -d 'Report every so often, with rates: 1s, 500ms. Without it there is one report at the end' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l timeout -d 'End after this time: 20s, 1m30s; without it, at Ctrl-C' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s o -l output -d 'How to print' -r -f -a "table\t'Aligned columns for people'
json\t'One JSON object'
csv\t'Comma-separated values with a header line'"
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l dport -l orig-port-dst -d 'Only these service ports: 22, ssh, 8000-8099, \'!22\', or a list of such' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l direction -d 'Only connections that others opened to us (in), or that we opened (out)' -r -f -a "in\t'The peer'
out\t'This host'"
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l witnesses -d 'Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`, `sock_ops`, `destroy_sock`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l accept-hook -d 'Use this hook to see who accepts a connection, to compare them: `graft`, `function`, `syscalls`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l strict -d 'End with status 3 if a step of a connection was missed or could not be counted: the last report tells of a failure, a repair or a difference'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l total -d 'Only the sum of all ports'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l lifetimes -d 'How long handshakes and connections took: count, p50, p90, p99 and the longest per service port, each at most 9 % off, and a plot with a mark for each doubling'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l self -d 'What conntrace itself costs: runs and run time of its kernel programs, which the kernel times meanwhile, CPU and memory'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s n -l numeric -d 'Numbers of ports instead of names in tables: 22, not ssh'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s v -l verbose -d 'Tell more on standard error: what was found here, what follows from it, and the size of the programs; twice: the programs\' own log lines, too'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s h -l help -d 'Print help'
complete -c conntrace -n "__fish_conntrace_using_subcommand doctor" -s o -l output -d 'How to print' -r -f -a "table\t'Aligned columns for people'
json\t'One JSON object'
csv\t'Comma-separated values with a header line'"
complete -c conntrace -n "__fish_conntrace_using_subcommand doctor" -s v -l verbose -d 'Tell more on standard error: what was found here, what follows from it, and the size of the programs; twice: the programs\' own log lines, too'
complete -c conntrace -n "__fish_conntrace_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c conntrace -n "__fish_conntrace_using_subcommand help" -s v -l verbose -d 'Tell more on standard error: what was found here, what follows from it, and the size of the programs; twice: the programs\' own log lines, too'
complete -c conntrace -n "__fish_conntrace_using_subcommand help" -s h -l help -d 'Print help'
complete -c conntrace -n "__fish_conntrace_using_subcommand completions" -s v -l verbose -d 'Tell more on standard error: what was found here, what follows from it, and the size of the programs; twice: the programs\' own log lines, too'
complete -c conntrace -n "__fish_conntrace_using_subcommand completions" -s h -l help -d 'Print help'
