# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_conntrace_global_optspecs
    string join \n v/verbose local daemon= e/event-mask= count= timeout= b/buffer-size= max-flows= strict summary o/output= columns= no-header color= utc n/numeric resolve p/protocol= s/src= d/dst= dport= sport= r/reply-src= q/reply-dst= reply-port-src= reply-port-dst= m/mark= w/zone= src-nat= g/dst-nat= j/any-nat= state= direction= forwarded= f/family= pid= comm= uid= netns= cgroup= container= unit= user-unit= failed reason= error= viewer= witnesses= accept-hook= h/help V/version
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

complete -c conntrace -n "__fish_conntrace_needs_command" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_needs_command" -s e -l event-mask -d 'Only these kinds of events: NEW (attempt), UPDATES (change of state), DESTROY (end) or ALL; also ATTEMPT (a SYN that made no connection yet) and LISTEN (begin and end of a listener), which ALL leaves out. Case does not matter, and words may be shortened: -e n,d' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l count -d 'End after N events' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l timeout -d 'End after this time: 20s, 1m30s, 500ms. A number without unit is in seconds' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s b -l buffer-size -d 'Size of the buffer for events that wait to be printed, rounded up to a power of two: 65536, 512K, 64M [default: 8M]' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l max-flows -d 'Room for flows of UDP, 264 bytes each, rounded up to a power of two: 300000, 1M [default: 131072]' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s o -l output -d 'Output format: conntrack, table, json, csv, logfmt, xml, save, json-otel or json-ecs. timestamp, id, extended and ktimestamp add fields to conntrack and xml. The default is conntrack; it is table for `life` and for `list` on a terminal' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l columns -d 'Columns of table, csv, logfmt and json, by name, or all. +NAME adds to the default columns. `conntrace help formats` lists the names' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l color -d 'When to use colours. auto: on a terminal, unless `NO_COLOR` is set or TERM is dumb' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c conntrace -n "__fish_conntrace_needs_command" -s p -l protocol -d 'Only these protocols: tcp (the default), udp, all (both), or their numbers. `list` takes unix alone, too. With --forwarded any protocol, and all is the default' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s s -l src -l orig-src -d 'Only these initiators: an address, a prefix, or a list of them; \'!10.0.0.0/8\' excludes' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s d -l dst -l orig-dst -d 'Only these responders, like --src' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l dport -l orig-port-dst -d 'Only these service ports (the responder\'s): 22, ssh, 8000-8099, a list of them; \'!22\' excludes' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l sport -l orig-port-src -d 'Only these source ports (the initiator\'s), like --dport' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s r -l reply-src -d 'The source of replies, as in conntrack: the same as --dst, since a socket knows nothing of NAT. With --forwarded the two differ' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s q -l reply-dst -d 'The destination of replies, as in conntrack: the same as --src' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l reply-port-src -d 'The source port of replies, as in conntrack: the same as --dport' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l reply-port-dst -d 'The destination port of replies, as in conntrack: the same as --sport' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s m -l mark -d 'Only flows with this mark, with --forwarded: 7, or a mark and a mask like 0x1/0xff' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s w -l zone -d 'Only flows in this zone of connection tracking, with --forwarded' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l src-nat -d 'Only flows whose source is translated, with --forwarded; to this address, if one is given. -n ADDR is the same' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s g -l dst-nat -d 'Only flows whose destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s j -l any-nat -d 'Only flows whose source or destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l state -d 'Only these TCP states: established, syn-sent and so on, or a set of ss: connected, synchronized, bucket, big' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l direction -d 'Only connections that the peer opened (in), or that this host opened (out). A connection within this host has both ends here: without this option it is shown twice. forward is the same as --forwarded' -r -f -a "in\t'The peer'
out\t'This host'
forward\t'Neither: the flow passes through'"
complete -c conntrace -n "__fish_conntrace_needs_command" -l forwarded -d 'Flows that pass through this host instead of its sockets, from connection tracking: of a router, a NAT gateway, the host of containers. --forwarded=all shows every flow that is tracked. -p takes any protocol then' -r -f -a "only\t'Those that pass through'
all\t'All, those of this host\'s own sockets, too'"
complete -c conntrace -n "__fish_conntrace_needs_command" -s f -l family -d 'Only this address family. An IPv4 address on an IPv6 socket counts as IPv4' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_needs_command" -l pid -d 'Only these owners, by process id' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l comm -d 'Only owners with these process names. - stands for an unknown owner' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l uid -d 'Only owners of these users, by name or number' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l netns -d 'Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l cgroup -d 'Only owners in this cgroup itself, by its path below the cgroup v2 root' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l container -d 'Only owners in these containers: names, ids, first digits of ids, or patterns like \'web*\'. NAME@USER is a container of a user\'s runtime, NAME@* one of any user\'s' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l unit -d 'Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, \'php*\'' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l user-unit -d 'Only owners in these units or slices of a user\'s own service manager (systemctl --user)' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l reason -d 'Only ends for these reasons: refused, timed_out, reset_by_peer, ... (docs/columns.md)' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l error -d 'Only ends with these errors: ECONNREFUSED, 111; - for no error' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l viewer -d 'The user whose processes the run shows; owners of others are unknown. The daemon gives it for a client that is no member of its group' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l witnesses -d 'Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`, `sock_ops`, `destroy_sock`' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -l accept-hook -d 'Use this hook to see accepts instead of the planned one, to compare them: `graft`, `function`, `syscalls`' -r
complete -c conntrace -n "__fish_conntrace_needs_command" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_needs_command" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_needs_command" -l strict -d 'End with status 3 if an event was lost, or if the kernel programs had no memory or no room for something'
complete -c conntrace -n "__fish_conntrace_needs_command" -l summary -d 'Print the counts per service port to standard error at the end, as `stats` does'
complete -c conntrace -n "__fish_conntrace_needs_command" -l no-header -d 'Leave out the line with the names of the columns, in table and csv'
complete -c conntrace -n "__fish_conntrace_needs_command" -l utc -d 'Print times in UTC instead of local time. csv, json and logfmt always have UTC'
complete -c conntrace -n "__fish_conntrace_needs_command" -s n -l numeric -d 'Show port numbers instead of service names in tables: 22, not ssh. Cancels an earlier --resolve'
complete -c conntrace -n "__fish_conntrace_needs_command" -l resolve -d 'Look up names of addresses in /etc/hosts and DNS. Tables show them instead of addresses, other formats as `src_name` and `dst_name`. No event waits for a name: until a name is known, the address is shown. `list` waits up to two seconds. A name that does not lead back to its address has a ? behind it'
complete -c conntrace -n "__fish_conntrace_needs_command" -l failed -d 'Only connections that ended without ever being established'
complete -c conntrace -n "__fish_conntrace_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_needs_command" -s V -l version -d 'Print version'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "events" -d 'Print events as they happen, until Ctrl-C (the default; -E as in conntrack)'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "count" -d 'Print how many connections are open now (-C as in conntrack)'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "list" -d 'Print the connections that are open now, and their processes (-L as in conntrack)'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "life" -d 'Print each connection when it ends: lifetime, process and reason'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "stats" -d 'Count opened, failed and closed connections per service port (-S as in conntrack)'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "serve" -d 'Run as a daemon that counts, and answers on a Unix socket'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "front" -d 'The half of the daemon that speaks to clients'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "watch-rules" -d 'The process of the daemon that watches its rules'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "export-otlp" -d 'The process of the daemon that sends its metrics by OTLP'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "rules" -d 'Explain the daemon\'s rules of alarms, and test one'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "munin" -d 'Print a graph for munin, as its plugins do'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "doctor" -d 'Check what conntrace can do on this host, and test it'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "help" -d 'Explain a command or a topic'
complete -c conntrace -n "__fish_conntrace_needs_command" -a "completions" -d 'Print the completion script for a shell'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s e -l event-mask -d 'Only these kinds of events: NEW (attempt), UPDATES (change of state), DESTROY (end) or ALL; also ATTEMPT (a SYN that made no connection yet) and LISTEN (begin and end of a listener), which ALL leaves out. Case does not matter, and words may be shortened: -e n,d' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l count -d 'End after N events' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l timeout -d 'End after this time: 20s, 1m30s, 500ms. A number without unit is in seconds' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s b -l buffer-size -d 'Size of the buffer for events that wait to be printed, rounded up to a power of two: 65536, 512K, 64M [default: 8M]' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l max-flows -d 'Room for flows of UDP, 264 bytes each, rounded up to a power of two: 300000, 1M [default: 131072]' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s o -l output -d 'Output format: conntrack, table, json, csv, logfmt, xml, save, json-otel or json-ecs. timestamp, id, extended and ktimestamp add fields to conntrack and xml. The default is conntrack; it is table for `life` and for `list` on a terminal' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l columns -d 'Columns of table, csv, logfmt and json, by name, or all. +NAME adds to the default columns. `conntrace help formats` lists the names' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l color -d 'When to use colours. auto: on a terminal, unless `NO_COLOR` is set or TERM is dumb' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s p -l protocol -d 'Only these protocols: tcp (the default), udp, all (both), or their numbers. `list` takes unix alone, too. With --forwarded any protocol, and all is the default' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s s -l src -l orig-src -d 'Only these initiators: an address, a prefix, or a list of them; \'!10.0.0.0/8\' excludes' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s d -l dst -l orig-dst -d 'Only these responders, like --src' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l dport -l orig-port-dst -d 'Only these service ports (the responder\'s): 22, ssh, 8000-8099, a list of them; \'!22\' excludes' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l sport -l orig-port-src -d 'Only these source ports (the initiator\'s), like --dport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s r -l reply-src -d 'The source of replies, as in conntrack: the same as --dst, since a socket knows nothing of NAT. With --forwarded the two differ' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s q -l reply-dst -d 'The destination of replies, as in conntrack: the same as --src' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l reply-port-src -d 'The source port of replies, as in conntrack: the same as --dport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l reply-port-dst -d 'The destination port of replies, as in conntrack: the same as --sport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s m -l mark -d 'Only flows with this mark, with --forwarded: 7, or a mark and a mask like 0x1/0xff' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s w -l zone -d 'Only flows in this zone of connection tracking, with --forwarded' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l src-nat -d 'Only flows whose source is translated, with --forwarded; to this address, if one is given. -n ADDR is the same' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s g -l dst-nat -d 'Only flows whose destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s j -l any-nat -d 'Only flows whose source or destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l state -d 'Only these TCP states: established, syn-sent and so on, or a set of ss: connected, synchronized, bucket, big' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l direction -d 'Only connections that the peer opened (in), or that this host opened (out). A connection within this host has both ends here: without this option it is shown twice. forward is the same as --forwarded' -r -f -a "in\t'The peer'
out\t'This host'
forward\t'Neither: the flow passes through'"
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l forwarded -d 'Flows that pass through this host instead of its sockets, from connection tracking: of a router, a NAT gateway, the host of containers. --forwarded=all shows every flow that is tracked. -p takes any protocol then' -r -f -a "only\t'Those that pass through'
all\t'All, those of this host\'s own sockets, too'"
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s f -l family -d 'Only this address family. An IPv4 address on an IPv6 socket counts as IPv4' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l pid -d 'Only these owners, by process id' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l comm -d 'Only owners with these process names. - stands for an unknown owner' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l uid -d 'Only owners of these users, by name or number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l netns -d 'Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l cgroup -d 'Only owners in this cgroup itself, by its path below the cgroup v2 root' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l container -d 'Only owners in these containers: names, ids, first digits of ids, or patterns like \'web*\'. NAME@USER is a container of a user\'s runtime, NAME@* one of any user\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l unit -d 'Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, \'php*\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l user-unit -d 'Only owners in these units or slices of a user\'s own service manager (systemctl --user)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l reason -d 'Only ends for these reasons: refused, timed_out, reset_by_peer, ... (docs/columns.md)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l error -d 'Only ends with these errors: ECONNREFUSED, 111; - for no error' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l viewer -d 'The user whose processes the run shows; owners of others are unknown. The daemon gives it for a client that is no member of its group' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l witnesses -d 'Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`, `sock_ops`, `destroy_sock`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l accept-hook -d 'Use this hook to see accepts instead of the planned one, to compare them: `graft`, `function`, `syscalls`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l strict -d 'End with status 3 if an event was lost, or if the kernel programs had no memory or no room for something'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l summary -d 'Print the counts per service port to standard error at the end, as `stats` does'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l no-header -d 'Leave out the line with the names of the columns, in table and csv'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l utc -d 'Print times in UTC instead of local time. csv, json and logfmt always have UTC'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s n -l numeric -d 'Show port numbers instead of service names in tables: 22, not ssh. Cancels an earlier --resolve'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l resolve -d 'Look up names of addresses in /etc/hosts and DNS. Tables show them instead of addresses, other formats as `src_name` and `dst_name`. No event waits for a name: until a name is known, the address is shown. `list` waits up to two seconds. A name that does not lead back to its address has a ? behind it'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l failed -d 'Only connections that ended without ever being established'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand events" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
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
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s o -l output -d 'Output format [default: table]' -r -f -a "table\t'Aligned columns for people'
json\t'One JSON object'
csv\t'Comma-separated values with a header line'"
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s p -l protocol -d 'Only these protocols: tcp (the default), udp, all (both), or their numbers. `list` takes unix alone, too. With --forwarded any protocol, and all is the default' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s s -l src -l orig-src -d 'Only these initiators: an address, a prefix, or a list of them; \'!10.0.0.0/8\' excludes' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s d -l dst -l orig-dst -d 'Only these responders, like --src' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l dport -l orig-port-dst -d 'Only these service ports (the responder\'s): 22, ssh, 8000-8099, a list of them; \'!22\' excludes' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l sport -l orig-port-src -d 'Only these source ports (the initiator\'s), like --dport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s r -l reply-src -d 'The source of replies, as in conntrack: the same as --dst, since a socket knows nothing of NAT. With --forwarded the two differ' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s q -l reply-dst -d 'The destination of replies, as in conntrack: the same as --src' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l reply-port-src -d 'The source port of replies, as in conntrack: the same as --dport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l reply-port-dst -d 'The destination port of replies, as in conntrack: the same as --sport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s m -l mark -d 'Only flows with this mark, with --forwarded: 7, or a mark and a mask like 0x1/0xff' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s w -l zone -d 'Only flows in this zone of connection tracking, with --forwarded' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l src-nat -d 'Only flows whose source is translated, with --forwarded; to this address, if one is given. -n ADDR is the same' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s g -l dst-nat -d 'Only flows whose destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s j -l any-nat -d 'Only flows whose source or destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l state -d 'Only these TCP states: established, syn-sent and so on, or a set of ss: connected, synchronized, bucket, big' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l direction -d 'Only connections that the peer opened (in), or that this host opened (out). A connection within this host has both ends here: without this option it is shown twice. forward is the same as --forwarded' -r -f -a "in\t'The peer'
out\t'This host'
forward\t'Neither: the flow passes through'"
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l forwarded -d 'Flows that pass through this host instead of its sockets, from connection tracking: of a router, a NAT gateway, the host of containers. --forwarded=all shows every flow that is tracked. -p takes any protocol then' -r -f -a "only\t'Those that pass through'
all\t'All, those of this host\'s own sockets, too'"
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s f -l family -d 'Only this address family. An IPv4 address on an IPv6 socket counts as IPv4' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l pid -d 'Only these owners, by process id' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l comm -d 'Only owners with these process names. - stands for an unknown owner' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l uid -d 'Only owners of these users, by name or number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l netns -d 'Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l cgroup -d 'Only owners in this cgroup itself, by its path below the cgroup v2 root' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l container -d 'Only owners in these containers: names, ids, first digits of ids, or patterns like \'web*\'. NAME@USER is a container of a user\'s runtime, NAME@* one of any user\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l unit -d 'Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, \'php*\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l user-unit -d 'Only owners in these units or slices of a user\'s own service manager (systemctl --user)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l reason -d 'Only ends for these reasons: refused, timed_out, reset_by_peer, ... (docs/columns.md)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l error -d 'Only ends with these errors: ECONNREFUSED, 111; - for no error' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l viewer -d 'The user whose processes the run shows; owners of others are unknown. The daemon gives it for a client that is no member of its group' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l exit-code -d 'End with status 1 if nothing was found, as grep does, and with status 2 after an error'
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s n -l numeric -d 'Show port numbers instead of service names in tables: 22, not ssh'
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l failed -d 'Only connections that ended without ever being established'
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand count" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l min-age -d 'Only connections that are certainly at least this old: 5s, 2h' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l sort -d 'Sort by age, bytes, rtt, retransmits or queue, the largest first; or by port or pid, the smallest first' -r -f -a "age\t'The oldest first'
bytes\t'The most bytes, both ways, first'
rtt\t'The longest round trip first'
retransmits\t'The most retransmissions first'
queue\t'The fullest queue, either way, first'
port\t'By service port'
pid\t'By process'"
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s o -l output -d 'Output format: conntrack, table, json, csv, logfmt, xml, save, json-otel or json-ecs. timestamp, id, extended and ktimestamp add fields to conntrack and xml. The default is conntrack; it is table for `life` and for `list` on a terminal' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l columns -d 'Columns of table, csv, logfmt and json, by name, or all. +NAME adds to the default columns. `conntrace help formats` lists the names' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l color -d 'When to use colours. auto: on a terminal, unless `NO_COLOR` is set or TERM is dumb' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s p -l protocol -d 'Only these protocols: tcp (the default), udp, all (both), or their numbers. `list` takes unix alone, too. With --forwarded any protocol, and all is the default' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s s -l src -l orig-src -d 'Only these initiators: an address, a prefix, or a list of them; \'!10.0.0.0/8\' excludes' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s d -l dst -l orig-dst -d 'Only these responders, like --src' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l dport -l orig-port-dst -d 'Only these service ports (the responder\'s): 22, ssh, 8000-8099, a list of them; \'!22\' excludes' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l sport -l orig-port-src -d 'Only these source ports (the initiator\'s), like --dport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s r -l reply-src -d 'The source of replies, as in conntrack: the same as --dst, since a socket knows nothing of NAT. With --forwarded the two differ' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s q -l reply-dst -d 'The destination of replies, as in conntrack: the same as --src' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l reply-port-src -d 'The source port of replies, as in conntrack: the same as --dport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l reply-port-dst -d 'The destination port of replies, as in conntrack: the same as --sport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s m -l mark -d 'Only flows with this mark, with --forwarded: 7, or a mark and a mask like 0x1/0xff' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s w -l zone -d 'Only flows in this zone of connection tracking, with --forwarded' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l src-nat -d 'Only flows whose source is translated, with --forwarded; to this address, if one is given. -n ADDR is the same' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s g -l dst-nat -d 'Only flows whose destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s j -l any-nat -d 'Only flows whose source or destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l state -d 'Only these TCP states: established, syn-sent and so on, or a set of ss: connected, synchronized, bucket, big' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l direction -d 'Only connections that the peer opened (in), or that this host opened (out). A connection within this host has both ends here: without this option it is shown twice. forward is the same as --forwarded' -r -f -a "in\t'The peer'
out\t'This host'
forward\t'Neither: the flow passes through'"
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l forwarded -d 'Flows that pass through this host instead of its sockets, from connection tracking: of a router, a NAT gateway, the host of containers. --forwarded=all shows every flow that is tracked. -p takes any protocol then' -r -f -a "only\t'Those that pass through'
all\t'All, those of this host\'s own sockets, too'"
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s f -l family -d 'Only this address family. An IPv4 address on an IPv6 socket counts as IPv4' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l pid -d 'Only these owners, by process id' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l comm -d 'Only owners with these process names. - stands for an unknown owner' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l uid -d 'Only owners of these users, by name or number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l netns -d 'Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l cgroup -d 'Only owners in this cgroup itself, by its path below the cgroup v2 root' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l container -d 'Only owners in these containers: names, ids, first digits of ids, or patterns like \'web*\'. NAME@USER is a container of a user\'s runtime, NAME@* one of any user\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l unit -d 'Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, \'php*\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l user-unit -d 'Only owners in these units or slices of a user\'s own service manager (systemctl --user)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l reason -d 'Only ends for these reasons: refused, timed_out, reset_by_peer, ... (docs/columns.md)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l error -d 'Only ends with these errors: ECONNREFUSED, 111; - for no error' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l viewer -d 'The user whose processes the run shows; owners of others are unknown. The daemon gives it for a client that is no member of its group' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s l -l listening -d 'Show listening sockets instead, with the length and the limit of the accept queue; of UDP and unix, sockets without a peer'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l dump -d 'conntrack\'s lines on a terminal, too: `-L` of conntrack'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l exit-code -d 'End with status 1 if nothing was found, as grep does, and with status 2 after an error'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l no-header -d 'Leave out the line with the names of the columns, in table and csv'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l utc -d 'Print times in UTC instead of local time. csv, json and logfmt always have UTC'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s n -l numeric -d 'Show port numbers instead of service names in tables: 22, not ssh. Cancels an earlier --resolve'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l resolve -d 'Look up names of addresses in /etc/hosts and DNS. Tables show them instead of addresses, other formats as `src_name` and `dst_name`. No event waits for a name: until a name is known, the address is shown. `list` waits up to two seconds. A name that does not lead back to its address has a ? behind it'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l failed -d 'Only connections that ended without ever being established'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l min -d 'Only connections that lasted at least this long: 5s, 1m30s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l max -d 'Only connections that lasted at most this long' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l top -d 'Print only the N largest connections, at the end' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l sort -d 'Sort by lifetime (the default), handshake, bytes, rtt or retransmits, the largest first, and print the connections at the end: 20, or as many as --top says' -r -f -a "lifetime\t'From the attempt to the end'
handshake\t'From the attempt to the end of the handshake'
bytes\t'Bytes both ways'
rtt\t'Smoothed round trip time'
retransmits\t'Segments retransmitted'"
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l count -d 'End after N events' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l timeout -d 'End after this time: 20s, 1m30s, 500ms. A number without unit is in seconds' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s b -l buffer-size -d 'Size of the buffer for events that wait to be printed, rounded up to a power of two: 65536, 512K, 64M [default: 8M]' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l max-flows -d 'Room for flows of UDP, 264 bytes each, rounded up to a power of two: 300000, 1M [default: 131072]' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s o -l output -d 'Output format: conntrack, table, json, csv, logfmt, xml, save, json-otel or json-ecs. timestamp, id, extended and ktimestamp add fields to conntrack and xml. The default is conntrack; it is table for `life` and for `list` on a terminal' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l columns -d 'Columns of table, csv, logfmt and json, by name, or all. +NAME adds to the default columns. `conntrace help formats` lists the names' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l color -d 'When to use colours. auto: on a terminal, unless `NO_COLOR` is set or TERM is dumb' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s p -l protocol -d 'Only these protocols: tcp (the default), udp, all (both), or their numbers. `list` takes unix alone, too. With --forwarded any protocol, and all is the default' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s s -l src -l orig-src -d 'Only these initiators: an address, a prefix, or a list of them; \'!10.0.0.0/8\' excludes' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s d -l dst -l orig-dst -d 'Only these responders, like --src' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l dport -l orig-port-dst -d 'Only these service ports (the responder\'s): 22, ssh, 8000-8099, a list of them; \'!22\' excludes' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l sport -l orig-port-src -d 'Only these source ports (the initiator\'s), like --dport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s r -l reply-src -d 'The source of replies, as in conntrack: the same as --dst, since a socket knows nothing of NAT. With --forwarded the two differ' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s q -l reply-dst -d 'The destination of replies, as in conntrack: the same as --src' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l reply-port-src -d 'The source port of replies, as in conntrack: the same as --dport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l reply-port-dst -d 'The destination port of replies, as in conntrack: the same as --sport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s m -l mark -d 'Only flows with this mark, with --forwarded: 7, or a mark and a mask like 0x1/0xff' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s w -l zone -d 'Only flows in this zone of connection tracking, with --forwarded' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l src-nat -d 'Only flows whose source is translated, with --forwarded; to this address, if one is given. -n ADDR is the same' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s g -l dst-nat -d 'Only flows whose destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s j -l any-nat -d 'Only flows whose source or destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l state -d 'Only these TCP states: established, syn-sent and so on, or a set of ss: connected, synchronized, bucket, big' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l direction -d 'Only connections that the peer opened (in), or that this host opened (out). A connection within this host has both ends here: without this option it is shown twice. forward is the same as --forwarded' -r -f -a "in\t'The peer'
out\t'This host'
forward\t'Neither: the flow passes through'"
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l forwarded -d 'Flows that pass through this host instead of its sockets, from connection tracking: of a router, a NAT gateway, the host of containers. --forwarded=all shows every flow that is tracked. -p takes any protocol then' -r -f -a "only\t'Those that pass through'
all\t'All, those of this host\'s own sockets, too'"
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s f -l family -d 'Only this address family. An IPv4 address on an IPv6 socket counts as IPv4' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l pid -d 'Only these owners, by process id' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l comm -d 'Only owners with these process names. - stands for an unknown owner' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l uid -d 'Only owners of these users, by name or number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l netns -d 'Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l cgroup -d 'Only owners in this cgroup itself, by its path below the cgroup v2 root' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l container -d 'Only owners in these containers: names, ids, first digits of ids, or patterns like \'web*\'. NAME@USER is a container of a user\'s runtime, NAME@* one of any user\'s' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l unit -d 'Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, \'php*\'' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l user-unit -d 'Only owners in these units or slices of a user\'s own service manager (systemctl --user)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l reason -d 'Only ends for these reasons: refused, timed_out, reset_by_peer, ... (docs/columns.md)' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l error -d 'Only ends with these errors: ECONNREFUSED, 111; - for no error' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l viewer -d 'The user whose processes the run shows; owners of others are unknown. The daemon gives it for a client that is no member of its group' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l witnesses -d 'Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`, `sock_ops`, `destroy_sock`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l accept-hook -d 'Use this hook to see accepts instead of the planned one, to compare them: `graft`, `function`, `syscalls`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l strict -d 'End with status 3 if an event was lost, or if the kernel programs had no memory or no room for something'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l no-header -d 'Leave out the line with the names of the columns, in table and csv'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l utc -d 'Print times in UTC instead of local time. csv, json and logfmt always have UTC'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s n -l numeric -d 'Show port numbers instead of service names in tables: 22, not ssh. Cancels an earlier --resolve'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l resolve -d 'Look up names of addresses in /etc/hosts and DNS. Tables show them instead of addresses, other formats as `src_name` and `dst_name`. No event waits for a name: until a name is known, the address is shown. `list` waits up to two seconds. A name that does not lead back to its address has a ? behind it'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l failed -d 'Only connections that ended without ever being established'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand life" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l interval -d 'Print a report with rates at this interval: 1s, 500ms. Without it, there is one report at the end' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l timeout -d 'End after this time: 20s, 1m30s. Without it, end at Ctrl-C' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l since -d 'Ask the daemon for the counts since so long ago: 10m, 2h. It keeps those of each minute for a day' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l sources -d 'Also print the N remote addresses with the most SYNs and connections: half-open requests (attempts), SYNs that this host refused, connections, and those that failed. The kernel counts up to 65536 addresses, and all others in one row. CSV has these rows instead of the ports' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l sources-by -d 'Count for --sources by address, or by prefix: /24 of IPv4, /64 of IPv6 [default: address]' -r -f -a "address\t'Remote addresses'
prefix\t'Their prefixes: /24 of IPv4, /64 of IPv6'"
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l sources-sort -d 'Sort --sources by this count: all (SYNs and connections), attempts, `refused_by_us`, opened, failed [default: all]' -r -f -a "all\t'All SYNs and connections: half-open requests, refused SYNs and connections'
attempts\t'Half-open requests'
refused_by_us\t'SYNs that this host refused'
opened\t'Connections'
failed\t'Connections that were never established'"
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s o -l output -d 'Output format. prometheus has a series for each port with incoming connections, up to 256, and for each port of --dport; all others are port="other" [default: table]' -r -f -a "table\t'Aligned columns for people'
json\t'One JSON object for each report'
csv\t'Comma-separated values with a header line'
prometheus\t'Metrics in the text format of Prometheus'"
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l textfile -d 'Write the metrics of -o prometheus into this file, at each --interval and at the end: each time as a new file under the old name, as the textfile collector of `node_exporter` wants it' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s p -l protocol -d 'Only these protocols: tcp (the default), udp, all, or their numbers' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l max-flows -d 'Room for flows of UDP, 264 bytes each, rounded up to a power of two: 300000, 1M [default: 131072]' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l dport -l orig-port-dst -d 'Only these service ports: 22, ssh, 8000-8099, a list of them; !22 excludes one' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l direction -d 'Only connections that the peer opened (in), or that this host opened (out); forward is the same as --forwarded' -r -f -a "in\t'The peer'
out\t'This host'
forward\t'Neither: the flow passes through'"
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l forwarded -d 'Count flows that pass through this host instead of its sockets, from connection tracking, with the account and the failures of each network namespace. --forwarded=all counts every flow that is tracked' -r -f -a "only\t'Those that pass through'
all\t'All, those of this host\'s own sockets, too'"
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s s -l src -l orig-src -d 'Only flows from these addresses, with --forwarded: an address, a prefix, or a list of them; \'!10.0.0.0/8\' excludes' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s d -l dst -l orig-dst -d 'Only flows to these addresses, with --forwarded, like --src' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l sport -l orig-port-src -d 'Only flows from these ports, with --forwarded, like --dport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s f -l family -d 'Only flows of this address family, with --forwarded' -r -f -a "ipv4\t'IPv4'
ipv6\t'IPv6'"
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l netns -d 'Only flows in this network namespace, with --forwarded: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in it, or its inode number' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s r -l reply-src -d 'The source of replies, as in conntrack: the same as --dst, since a socket knows nothing of NAT. With --forwarded the two differ' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s q -l reply-dst -d 'The destination of replies, as in conntrack: the same as --src' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l reply-port-src -d 'The source port of replies, as in conntrack: the same as --dport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l reply-port-dst -d 'The destination port of replies, as in conntrack: the same as --sport' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s m -l mark -d 'Only flows with this mark, with --forwarded: 7, or a mark and a mask like 0x1/0xff' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s w -l zone -d 'Only flows in this zone of connection tracking, with --forwarded' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l src-nat -d 'Only flows whose source is translated, with --forwarded; to this address, if one is given. -n ADDR is the same' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s g -l dst-nat -d 'Only flows whose destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s j -l any-nat -d 'Only flows whose source or destination is translated, with --forwarded; to this address, if one is given' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l witnesses -d 'Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`, `sock_ops`, `destroy_sock`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l accept-hook -d 'Use this hook to see accepts instead of the planned one, to compare them: `graft`, `function`, `syscalls`' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l rates -d 'Add rates per second, over the time of --since [default there: 1m]'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l plot -d 'Draw opened, failed and open connections over the time of --since [default there: 1d], of all and of the busiest ports, as the daemon has counted them'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l strict -d 'End with status 3 if a step of a connection was missed or could not be counted: the last report has a failure, a repair or a difference'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l total -d 'Print only the sum of all ports'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l all -d 'Print every port in a table. Without it, a table has the 20 busiest ports and the sum of the others'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l proof -d 'Print the whole proof below the table: sums per network namespace, every counter, and the audit. Without it, one line says whether the counts are exact, and only what is not zero follows'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l lifetimes -d 'Also print how long handshakes and connections took, per service port: count, p50, p90, p99 and the longest, each at most 9 % off, and a plot with a mark for each doubling'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l self -d 'Also print what conntrace itself costs: runs and run time of its kernel programs, CPU time and memory. The kernel measures the programs, which costs some time itself'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l no-header -d 'Leave out the line with the names of the columns, in table and csv'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s n -l numeric -d 'Show port numbers instead of service names in tables: 22, not ssh'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -l config -d 'The configuration file, which these options override [default: /etc/conntrace/conntrace.toml, if it is there]' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -l socket -d 'The socket for clients, at an absolute path [default: /run/conntrace/conntrace.sock]' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -l group -d 'The group whose members may ask, beside root: a name or a number. A group that is missing has no members [default: conntrace]' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -l bpffs -d 'Pin kernel programs and counts below this mount point of a BPF file system [default: /sys/fs/bpf]' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -l check -d 'Read the configuration file, print what is wrong, and end'
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -l transient -d 'Pin nothing: the kernel programs and their counts end with the daemon'
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -l detach -d 'Take away what an earlier daemon has pinned, and end'
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand front" -l user -d 'The user to become' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand front" -l group -d 'The group to become' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand front" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand front" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand front" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand front" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand watch-rules" -l user -d 'The user to become' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand watch-rules" -l group -d 'The group to become' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand watch-rules" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand watch-rules" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand watch-rules" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand watch-rules" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand export-otlp" -l user -d 'The user to become' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand export-otlp" -l group -d 'The group to become' -r
complete -c conntrace -n "__fish_conntrace_using_subcommand export-otlp" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand export-otlp" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand export-otlp" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand export-otlp" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand rules" -l config -d 'The configuration file of the daemon [default: /etc/conntrace/conntrace.toml]' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand rules" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand rules" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand rules" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand rules" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand munin" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand munin" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand munin" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand munin" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand doctor" -s o -l output -d 'Output format [default: table]' -r -f -a "table\t'Aligned columns for people'
json\t'One JSON object'
csv\t'Comma-separated values with a header line'"
complete -c conntrace -n "__fish_conntrace_using_subcommand doctor" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand doctor" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand doctor" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand help" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand help" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand help" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c conntrace -n "__fish_conntrace_using_subcommand completions" -l daemon -d 'Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list, life and stats ask the daemon if this process may not load kernel programs and the socket is there' -r -F
complete -c conntrace -n "__fish_conntrace_using_subcommand completions" -s v -l verbose -d 'Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard error. -vv adds the log lines of the kernel programs'
complete -c conntrace -n "__fish_conntrace_using_subcommand completions" -l local -d 'Answer from this process, even if a daemon runs (conntrace serve)'
complete -c conntrace -n "__fish_conntrace_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
