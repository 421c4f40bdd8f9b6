//! The lines that the code is drawn within: who may import what, where the environment is read, where unsafe code lives, how
//! long a file is, and that every file is part of the program.
//!
//! Reads the source text, without parsing Rust: a comment line is not looked at, a string that spells a banned word is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file that needs more has more than one subject.
const LINES_MAX: usize = 400;
/// Tests, the model and the fake kernel keep what belongs together in one file.
const TEST_LINES_MAX: usize = 450;

const CRATES: [&str; 7] =
    ["gateway", "gateway/wire", "gateway/topic-ids", "gateway/protocol", "publisher", "bench", "testkit"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The text of a file of the repository.
pub(crate) fn page(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A source file: its path from the top of the repository, and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn is_below(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// Whether it is a test that lies beside what it tests.
    fn is_below_tests(&self) -> bool {
        self.path.contains("/src/") && self.path.contains("/tests/") || self.path.ends_with("_tests.rs")
    }

    /// Lines of code, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Files of the repository that end so, build output and what is hidden aside.
pub(crate) fn files(extensions: &[&str]) -> Vec<Source> {
    let top = workspace();
    let mut sources = Vec::new();
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if extensions.iter().any(|extension| name.ends_with(extension)) {
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source {
                    path: path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    sources
}

/// Lines of code with one of the words, in files that are not allowed to have them.
fn violations(sources: &[Source], words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.is_below(allowed)) {
        for (number, line) in source.code() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    found
}

fn gateway_sources() -> Vec<Source> {
    let mut sources = files(&[".rs"]);
    sources.retain(|source| source.is_below(&["gateway/src/"]));
    assert!(sources.len() > 30, "the sources are elsewhere");
    sources
}

#[test]
fn only_the_named_edge_files_import_kafka_the_executor_and_the_ring() {
    let sources = gateway_sources();
    let kafka = [
        "gateway/src/kafka/consumer.rs",
        "gateway/src/kafka/control/",
        "gateway/src/kafka/record.rs",
        "gateway/src/kafka/replay/reader.rs",
        "gateway/src/kafka/replay/tests/reader.rs",
        "gateway/src/dev.rs",
    ];
    assert_eq!(violations(&sources, &["rdkafka::", "use rdkafka"], &kafka), [""; 0]);
    let executor =
        ["gateway/src/shard/executor.rs", "gateway/src/shard/mesh/mod.rs", "gateway/src/preflight.rs"];
    assert_eq!(violations(&sources, &["glommio::", "use glommio"], &executor), [""; 0]);
    assert_eq!(violations(&sources, &["io_uring::", "use io_uring", "libc::"], &[]), [""; 0]);
    // What is allowed is there: a renamed file would make its line above mean nothing.
    for place in kafka.iter().chain(&executor) {
        assert!(sources.iter().any(|source| source.is_below(&[place])), "{place} is gone");
    }
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let sources = gateway_sources();
    let words = ["env::var", "env::vars", "envy::", "use std::env"];
    let tests = ["gateway/src/tests/preflight.rs", "gateway/src/shard/model/mod.rs"];
    assert_eq!(violations(&sources, &words, &["gateway/src/config/", tests[0], tests[1]]), [""; 0]);
    assert_eq!(violations(&sources, &["env::args"], &["gateway/src/main.rs"]), [""; 0]);
}

#[test]
fn only_the_socket_driver_and_the_question_for_topic_ids_have_unsafe_code() {
    let sources = files(&[".rs"]);
    let this_file = "gateway/tests/gateway/tidy.rs";
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code"];
    assert_eq!(violations(&sources, &words, &["gateway/wire/", "gateway/topic-ids/", this_file]), [""; 0]);
}

/// The files of the program without their tests.
fn without_tests(mut sources: Vec<Source>) -> Vec<Source> {
    let folders = ["/tests/", "/model/"];
    sources.retain(|source| {
        !source.path.ends_with("tests.rs") && !folders.iter().any(|it| source.path.contains(it))
    });
    for source in &mut sources {
        let end = source.text.find("#[cfg(test)]\nmod ").unwrap_or(source.text.len());
        source.text.truncate(end);
    }
    sources
}

/// `println!` and its like panic when the output is closed, and wait when nobody reads it.
#[test]
fn nothing_prints_past_the_log() {
    let mut sources = files(&[".rs"]);
    sources.retain(|source| source.is_below(&["gateway/src/", "gateway/wire/src/", "gateway/protocol/src/"]));
    let words = ["print!(", "println!("];
    assert_eq!(violations(&without_tests(sources), &words, &[]), [""; 0]);
}

/// A line costs its formatting and the lock of the log's queue: nobody is to wait for them.
#[test]
fn nothing_is_logged_while_the_status_is_locked() {
    for source in without_tests(gateway_sources()) {
        for (_, rest) in source.text.match_indices(".update(|").map(|(place, _)| source.text.split_at(place))
        {
            let mut depth = 0;
            let end = rest.find(|character| {
                depth += i32::from(character == '(') - i32::from(character == ')');
                character == ')' && depth == 0
            });
            let change = &rest[..end.expect("the call ends")];
            for call in ["debug!(", "info!(", "warn!(", "error!("] {
                assert!(!change.contains(call), "{}: {change}", source.path);
            }
        }
    }
}

#[test]
fn no_program_depends_on_what_is_for_tests_only() {
    for name in CRATES.iter().chain(&["bench/peers"]) {
        let manifest = page(&format!("{name}/Cargo.toml"));
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let is_for_tests = section == "[dev-dependencies]" || section.ends_with(".dev-dependencies]");
            assert!(!line.starts_with("testkit") || is_for_tests, "{name}: testkit stands under {section}");
        }
    }
    let kit = page("testkit/Cargo.toml");
    let dependencies = kit.split("[dependencies]").nth(1).unwrap();
    for tested in ["gateway", "wire", "publisher", "bench", "peers"] {
        let names =
            |line: &str| line.starts_with(&format!("{tested}.")) || line.starts_with(&format!("{tested} "));
        assert!(!dependencies.lines().any(names), "testkit depends on {tested}, which it is to test");
    }
}

#[test]
fn nothing_is_left_over() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
    ];
    let found: Vec<String> = files(&[".rs", ".md", ".sh", ".toml", ".html", ".java"])
        .iter()
        .flat_map(|source| {
            let lines = source.text.lines().enumerate();
            let left = lines.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
            left.map(|(index, line)| format!("{}:{}: {line}", source.path, index + 1)).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(found, [""; 0]);
}

#[test]
fn no_text_names_a_place_of_one_machine() {
    let folders =
        [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    let mut found = Vec::new();
    for source in files(&[".rs", ".md", ".sh", ".toml", ".html", ".java"]) {
        for folder in folders {
            // Where a path begins, not within one.
            let begins = |place: usize| {
                source.text[..place]
                    .chars()
                    .next_back()
                    .is_none_or(|before| " \t\n\"'`(=:<[".contains(before))
            };
            if source.text.match_indices(folder).any(|(place, _)| begins(place)) {
                found.push(format!("{}: {folder}", source.path));
            }
        }
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn files_stay_short() {
    for source in files(&[".rs"]) {
        let lines = source.text.lines().count();
        let is_test = source.path.contains("/tests/")
            || source.path.ends_with("tests.rs")
            || ["/shard/model/", "/wire/src/fake/"].iter().any(|folder| source.path.contains(folder));
        let lines_max = if is_test { TEST_LINES_MAX } else { LINES_MAX };
        assert!(lines <= lines_max, "{} has {lines} lines, more than {lines_max}: part it", source.path);
    }
}

#[test]
fn every_module_begins_with_its_contract() {
    let missing: Vec<String> = files(&[".rs"])
        .into_iter()
        .filter(|source| !source.is_below_tests() && !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert_eq!(missing, [""; 0]);
}

/// The rooms of the gateway, from the bottom up, as docs/ARCHITECTURE.md lists them: `shard/mesh/` and the like.
fn rooms() -> Vec<String> {
    let manual = page("docs/ARCHITECTURE.md");
    let map = manual.split("## Code map").nth(1).unwrap().split("## ").next().unwrap();
    let table = map.split("| room |").nth(1).unwrap().split("\n\n").next().unwrap();
    let rooms = table.lines().filter_map(|row| row.strip_prefix("| `")?.split_once('`'));
    rooms.map(|(room, _)| room.to_owned()).collect()
}

/// The room of a file below gateway/src, or of a module's path.
fn room_of<'a>(rooms: &'a [String], path: &str) -> Option<(usize, &'a str)> {
    let inside = |room: &&String| path.starts_with(&***room);
    let room = rooms.iter().filter(inside).max_by_key(|room| room.len())?;
    rooms.iter().position(|it| it == room).map(|place| (place, room.as_str()))
}

#[test]
fn the_code_map_names_the_folders_that_there_are() {
    let mut folders = BTreeSet::new();
    for source in gateway_sources() {
        let path = source.path.strip_prefix("gateway/src/").unwrap();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !folder.is_empty() && !folder.split('/').any(|name| name == "tests") {
            folders.insert(format!("{folder}/"));
        }
    }
    assert_eq!(rooms().into_iter().collect::<BTreeSet<_>>(), folders);
}

#[test]
fn no_room_imports_one_below_it_in_the_code_map() {
    let rooms = rooms();
    let mut found = BTreeSet::new();
    for source in without_tests(gateway_sources()) {
        let path = source.path.strip_prefix("gateway/src/").unwrap();
        let Some((place, room)) = room_of(&rooms, path).filter(|(_, room)| !room.contains("model/")) else {
            continue;
        };
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
        for (number, line) in source.code() {
            for name in line.split(|it: char| !it.is_alphanumeric() && it != '_' && it != ':') {
                let mut parts: Vec<&str> = module.split('/').collect();
                let mut named = name.split("::").peekable();
                match named.peek() {
                    Some(&"crate") => parts.clear(),
                    Some(&"super") => {}
                    _ => continue,
                }
                for part in named.filter(|part| !part.is_empty() && *part != "crate") {
                    if part == "super" {
                        parts.pop();
                    } else {
                        parts.push(part);
                    }
                }
                let imported = format!("{}/", parts.join("/"));
                let Some((of_imported, other)) = room_of(&rooms, &imported) else { continue };
                let is_family = other.starts_with(room) || room.starts_with(other);
                if !is_family && of_imported > place {
                    found.insert(format!("{}:{number}: {room} imports {other}", source.path));
                }
            }
        }
    }
    assert_eq!(found, BTreeSet::new());
}

#[test]
fn every_source_file_is_part_of_the_program() {
    let top = workspace();
    for name in CRATES {
        let folder = top.join(name).join("src");
        let mut reached = BTreeSet::new();
        for root in ["lib.rs", "main.rs"].map(|root| folder.join(root)) {
            if root.exists() {
                reach(&root, &folder, &mut reached);
            }
        }
        let prefix = format!("{name}/src/");
        let all = files(&[".rs"]).into_iter().filter(|source| source.path.starts_with(&prefix));
        let dead: Vec<String> =
            all.map(|source| source.path).filter(|path| !reached.contains(&top.join(path))).collect();
        assert_eq!(dead, [""; 0], "no `mod` leads there");
        assert!(!reached.is_empty(), "{name} has no sources");
    }
}

/// Adds a file and the modules that it declares, whose files lie in `folder` unless a `#[path]` says otherwise.
fn reach(file: &Path, folder: &Path, reached: &mut BTreeSet<PathBuf>) {
    reached.insert(file.to_owned());
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut path = None;
    for line in text.lines().map(str::trim) {
        if let Some(given) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            path = Some(file.parent().unwrap().join(given));
            continue;
        }
        let declared = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
        if let Some((visibility, name)) = declared
            && (visibility.is_empty() || visibility.starts_with("pub"))
        {
            let (flat, nested) = (folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs"));
            let module = path.take().unwrap_or(if nested.exists() { nested } else { flat });
            let inside = if module.ends_with("mod.rs") {
                module.parent().unwrap().to_owned()
            } else {
                folder.join(name)
            };
            reach(&module, &inside, reached);
        }
        if !line.starts_with("#[") {
            path = None;
        }
    }
}
