use std::collections::BTreeMap;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use super::*;

/// Of every architecture that Linux got since 2019.
const IO_URING_SETUP: i64 = 425;
const IO_URING_ENTER: i64 = 426;
const IO_URING_REGISTER: i64 = 427;

fn config(connections_max: usize) -> Config {
    let pairs =
        [("KAFKA_BROKERS", "broker:9092".to_owned()), ("WS_MAX_CONNECTIONS", connections_max.to_string())];
    Config::from_pairs(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)), false).unwrap()
}

/// What preflight says on a thread whose system calls are answered with `errno`; the filter stays on that thread and those
/// that it starts.
fn refusal_under_filter(calls: &[i64], errno: Errno) -> String {
    let rules: BTreeMap<_, _> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let denied = SeccompAction::Errno(errno.raw_os_error().unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, architecture).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    let thread = thread::spawn(move || {
        apply_filter(&program).unwrap();
        run(&config(100))
    });
    thread.join().unwrap().unwrap_err().to_string()
}

/// What preflight says in a process that a shell has set a limit for, WS_MAX_CONNECTIONS being 12,000.
fn said_under_limit(command: &str) -> String {
    let script = format!("{command} && exec \"$0\" \"$@\"");
    let program = std::env::current_exe().unwrap();
    let say = ["--exact", "preflight::tests::say", "--ignored", "--nocapture"];
    let output = Command::new("sh").args(["-c", &script]).arg(program).args(say).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "says what it finds: the tests of limits run it in processes that have them"]
fn say() {
    println!("{:?}", run(&config(12_000)).map_err(|error| error.to_string()));
}

fn assert_names(text: &str, expected: &[&str]) {
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_machine_with_io_uring_passes() {
    run(&config(100)).unwrap();
}

#[test]
fn a_trial_of_the_driver_leaves_nothing_open() {
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let options = driver_options(&config(100));
    let before = descriptors();
    for _ in 0..100 {
        try_driver(&options).unwrap();
    }
    // Other tests of this process have files of their own open.
    let after = descriptors();
    assert!(after < before + 50, "{before} descriptors before 100 trials, {after} after");
}

#[test]
fn the_soft_limit_of_open_files_becomes_the_hard_one() {
    let text = said_under_limit("ulimit -Sn 1500");
    // On a machine whose hard limit is low as well, that one is named.
    assert!(text.contains("Ok(())") || text.contains("the limit is"), "{text}");
    assert!(!text.contains("the limit is 1500"), "{text}");
}

#[test]
fn a_seccomp_filter_as_dockers_is_named_with_the_option_that_lifts_it() {
    let text = refusal_under_filter(&[IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER], Errno::PERM);
    assert_names(&text, &["io_uring_setup: Operation not permitted", "seccomp", "--security-opt seccomp="]);
}

#[test]
fn a_filter_on_any_of_the_three_calls_is_found() {
    for call in [IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER] {
        assert_names(&refusal_under_filter(&[call], Errno::PERM), &["seccomp"]);
    }
}

#[test]
fn a_kernel_without_io_uring_is_named() {
    let text = refusal_under_filter(&[IO_URING_SETUP], Errno::NOSYS);
    assert_names(
        &text,
        &["Function not implemented", "no io_uring", "gVisor", "Linux 6.1", &Machine::read().kernel],
    );
}

#[test]
fn a_kernel_that_does_not_know_the_flags_is_named_with_its_version() {
    let text = refusal_under_filter(&[IO_URING_SETUP], Errno::INVAL);
    assert_names(&text, &["Linux 6.1 or later", &Machine::read().kernel]);
}

#[test]
fn a_low_limit_of_locked_memory_is_named_with_the_commands_that_raise_it() {
    let text = said_under_limit("ulimit -l 64");
    assert_names(&text, &["the executor", "65536", "ulimit -l unlimited", "LimitMEMLOCK=infinity"]);
}

#[test]
fn a_low_limit_of_open_files_is_named_with_the_commands_that_raise_it() {
    let text = said_under_limit("ulimit -n 2000");
    assert_names(&text, &["12768 files", "the limit is 2000", "ulimit -n 12768"]);
}

#[test]
fn short_memory_is_named_with_the_limit_to_raise() {
    let text = refusal_under_filter(&[IO_URING_SETUP], Errno::NOMEM);
    assert_names(&text, &["ulimit -l", "LimitMEMLOCK", "memlock=-1"]);
}

#[test]
fn a_switched_off_io_uring_is_told_from_a_filter() {
    for (disabled, whom) in [(1, "privileged"), (2, "every process")] {
        let machine = Machine { io_uring_disabled: Some(disabled), ..Machine::default() };
        let text = remedy(Some(Errno::PERM), &machine);
        assert_names(&text, &[whom, "sysctl -w kernel.io_uring_disabled=0"]);
        assert!(!text.contains("seccomp"), "{text}");
    }
    let machine = Machine { io_uring_disabled: Some(0), ..Machine::default() };
    assert_names(&remedy(Some(Errno::PERM), &machine), &["seccomp"]);
}

#[test]
fn too_few_descriptors_are_refused_with_the_number_to_ask_for() {
    let own = (limits::SOCKETS_SPARE + limits::DESCRIPTORS_SPARE) as u64;
    let needed = 12_000 + own;
    let config = config(12_000);
    let text = check_descriptors(&config, Some(needed - 1)).unwrap_err().to_string();
    assert_names(
        &text,
        &[&format!("ulimit -n {needed}"), &format!("LimitNOFILE={needed}"), "WS_MAX_CONNECTIONS"],
    );
    assert!(check_descriptors(&config, Some(needed)).is_ok());
    assert!(check_descriptors(&config, None).is_ok());
}
