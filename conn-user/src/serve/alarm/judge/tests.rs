//! The judge without a daemon.

use super::*;
use crate::event::sort_key::SourceGroup;
use crate::serve::alarm::reading::Remote;

const SECOND: u64 = 1_000_000_000;

fn rule(condition: Condition) -> Rule {
    Rule {
        name: "r".into(),
        condition,
        ports: vec![(22, 22)],
        direction: None,
        hold: Duration::ZERO,
        pause: Duration::ZERO,
        recovery: false,
        actions: Vec::new(),
    }
}

fn judge(condition: Condition) -> Judge {
    Judge::new(rule(condition), Memory::default())
}

fn open(open: i64) -> Stats {
    let port = PortStats { port: 22, direction: "in".into(), open, ..PortStats::default() };
    let other = PortStats { port: 23, open: 1000, ..port.clone() };
    Stats { ports: vec![port, other], ..Stats::default() }
}

fn tried(opened: u64, established: u64, failed: u64) -> Stats {
    let direction = "out".to_owned();
    let port = PortStats { port: 22, direction, opened, established, failed, open: 0 };
    Stats { ports: vec![port], ..Stats::default() }
}

fn fires(edges: &[Edge]) -> Vec<bool> {
    edges.iter().map(|edge| edge.fires).collect()
}

#[test]
fn an_alarm_begins_once_and_ends_below_its_lower_limit() {
    let mut judge = judge(Condition::Open(Limits { above: 10_000, clear: 8_000 }));
    let values = [10, 11, 50, 9, 8, 7, 9, 11].map(|value| fires(&judge.look(&open(value), SECOND)));
    let none = Vec::new;
    assert_eq!(values, [none(), vec![true], none(), none(), none(), vec![false], none(), vec![true]]);
}

#[test]
fn an_alarm_waits_until_its_condition_has_held() {
    let mut judge = judge(Condition::Open(Limits { above: 10_000, clear: 10_000 }));
    judge.rule.hold = Duration::from_secs(5);
    let at = |judge: &mut Judge, value, second| fires(&judge.look(&open(value), second * SECOND));
    assert!(at(&mut judge, 11, 1).is_empty() && at(&mut judge, 11, 5).is_empty());
    assert!(at(&mut judge, 10, 6).is_empty() && at(&mut judge, 11, 7).is_empty());
    assert!(at(&mut judge, 11, 11).is_empty());
    assert_eq!(at(&mut judge, 11, 12), [true]);
    // After a restart, it is the same alarm.
    let memory = serde_json::to_string(&judge.memory).unwrap();
    let mut again = Judge::new(judge.rule, serde_json::from_str(&memory).unwrap());
    assert!(at(&mut again, 12, 13).is_empty());
    assert_eq!(fires(&again.look(&Stats::default(), 14 * SECOND)), [false]);
}

#[test]
fn rates_need_two_readings_of_one_epoch() {
    let mut judge = judge(Condition::New(Limits { above: 5_000, clear: 5_000 }));
    assert!(judge.look(&tried(1000, 0, 0), SECOND).is_empty());
    assert!(judge.look(&tried(1005, 0, 0), 2 * SECOND).is_empty());
    let edges = judge.look(&tried(1016, 0, 0), 4 * SECOND);
    assert_eq!(edges[0].text, "port 22 (out) has 5.5 new connections a second");
    // Another epoch.
    assert!(judge.look(&tried(3, 0, 0), 5 * SECOND).is_empty());
    assert_eq!(fires(&judge.look(&tried(4, 0, 0), 6 * SECOND)), [false]);
}

#[test]
fn a_share_of_failures_needs_attempts() {
    let share = Limits { above: 200, clear: 200 };
    let mut judge = judge(Condition::Failures { share, over: Duration::from_secs(10), least: 10 });
    assert!(judge.look(&tried(0, 0, 0), SECOND).is_empty());
    assert!(judge.look(&tried(9, 0, 9), 2 * SECOND).is_empty());
    let edges = judge.look(&tried(12, 3, 9), 3 * SECOND);
    assert_eq!((edges[0].fires, edges[0].value.as_deref()), (true, Some("75 %")));
    // The failures are older than the time that the rule looks back to.
    assert_eq!(fires(&judge.look(&tried(40, 31, 9), 13 * SECOND)), [false]);
}

fn listeners(all: &[(u16, u64, u64)]) -> Stats {
    let listeners = all.iter().map(|&(port, opened, closed)| ListenerStats {
        port,
        opened,
        closed,
        open: opened - closed,
    });
    Stats { listeners: listeners.collect(), ..Stats::default() }
}

#[test]
fn listeners_start_and_stop_however_short() {
    let mut judge = judge(Condition::Listening(Change::Changes));
    let mut texts = |all: &[(u16, u64, u64)]| -> Vec<String> {
        judge.look(&listeners(all), SECOND).into_iter().map(|edge| edge.text).collect()
    };
    assert!(texts(&[(22, 1, 0), (80, 1, 0)]).is_empty());
    assert!(texts(&[(22, 2, 1)]).is_empty());
    assert_eq!(texts(&[(22, 2, 2)]), ["port 22 stops listening"]);
    assert_eq!(texts(&[(22, 3, 3)]), ["port 22 starts to listen", "port 22 stops listening"]);
    assert_eq!(texts(&[(22, 4, 3)]), ["port 22 starts to listen"]);
    assert_eq!(texts(&[]), ["port 22 stops listening"]);
}

fn line(comm: &str, dport: u16) -> Line {
    let line = format!(
        "{{\"event\":\"new\",\"direction\":\"out\",\"src\":\"::1\",\"sport\":9,\"dst\":\"::1\",\"dport\":{dport},\
         \"comm\":\"{comm}\",\"pid\":7,\"netns\":1}}"
    );
    serde_json::from_str(&line).unwrap()
}

#[test]
fn a_process_is_new_once_and_after_learning() {
    let learn = Duration::from_secs(10);
    let mut judge = judge(Condition::Process { learn });
    let mut at = |comm, port, second| judge.look_at_process(&line(comm, port), learn, second * SECOND);
    assert!(at("curl", 22, 1).is_none() && at("curl", 22, 12).is_none());
    assert_eq!(at("nc", 22, 12).unwrap().text, "nc (pid 7) opens its first connection to port 22");
    assert!(at("nc", 22, 13).is_none());
    assert!(at("curl", 80, 13).is_some());
}

#[test]
fn an_old_connection_is_one_alarm_until_it_ends() {
    let age = Duration::from_secs(60);
    let mut judge = judge(Condition::Age(age));
    let lines = [line("sshd", 22)];
    let edges = judge.look_at_old(age, &lines, SECOND);
    assert_eq!(edges[0].text, "the connection ::1:9 -> ::1:22 of sshd (pid 7) is older than 1m");
    assert!(judge.look_at_old(age, &lines, SECOND).is_empty());
    assert_eq!(fires(&judge.look_at_old(age, &[], SECOND)), [false]);
}

#[test]
fn losses_are_reported_by_how_much_they_grew() {
    let mut judge = judge(Condition::Loss);
    let stats = |repaired| Stats { repaired, ..Stats::default() };
    assert!(judge.look(&stats(5), SECOND).is_empty() && judge.look(&stats(5), SECOND).is_empty());
    assert_eq!(judge.look(&stats(7), SECOND)[0].value.as_deref(), Some("2"));
}

#[test]
fn a_remote_address_is_an_alarm_of_its_own() {
    let limits = Limits { above: 10_000, clear: 5_000 };
    let mut judge = judge(Condition::Remote { limits, by: SourceGroup::Address });
    judge.rule.direction = Some(Way::In);
    let mut opened = 0;
    let mut look = |judge: &mut Judge, second: u64, counts: [(&str, &str, u64); 3]| {
        opened = counts.iter().map(|(_, _, count)| count).sum::<u64>().max(opened);
        let stats = tried(opened, 0, 0);
        let row = |(address, direction, opened): (&str, &str, u64)| Remote {
            address: address.to_owned(),
            direction: direction.to_owned(),
            opened,
        };
        if !judge.wants_remotes(&stats, second * SECOND) {
            return None;
        }
        let edges = judge.look_at_remotes(limits, &counts.map(row), second * SECOND);
        Some(edges.iter().map(|edge| (edge.subject.remote.clone().unwrap(), edge.fires)).collect::<Vec<_>>())
    };
    let at = |one, other, unlisted| {
        [("10.0.0.1", "in", one), ("10.0.0.1", "out", other), ("unlisted", "both", unlisted)]
    };
    // A slow host is not asked for its addresses.
    assert_eq!(look(&mut judge, 1, at(5, 0, 0)), None);
    assert_eq!(look(&mut judge, 2, at(10, 3, 0)), None);
    // The first reading of addresses has no rates.
    assert_eq!(look(&mut judge, 3, at(60, 3, 0)), Some(vec![]));
    assert_eq!(look(&mut judge, 4, at(90, 90, 2)), Some(vec![("10.0.0.1".into(), true)]));
    assert_eq!(look(&mut judge, 5, at(120, 90, 40)), Some(vec![("unlisted".into(), true)]));
    assert_eq!(look(&mut judge, 6, at(127, 90, 40)), Some(vec![("unlisted".into(), false)]));
    assert_eq!(look(&mut judge, 7, at(127, 90, 40)), Some(vec![("10.0.0.1".into(), false)]));
    assert_eq!(look(&mut judge, 8, at(127, 90, 40)), None);
}
