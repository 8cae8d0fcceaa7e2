//! The rules of the house that the compiler does not know: who imports whom, how long a file is, how it begins.
//!
//! No dependencies, no build: it reads the sources as text. `ARCHITECTURE.md` gives the reasons.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may import. A room that is not here does not exist.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("protocol", &["model"]),
    ("agent", &["model", "protocol"]),
    ("sandbox", &["model", "protocol", "agent"]),
    ("store", &["model"]),
    ("kernel", &["model", "protocol", "sandbox"]),
    ("session", &["model", "protocol", "kernel", "store"]),
    ("api", &["model", "protocol", "kernel", "session", "store"]),
    (
        "config",
        &["model", "sandbox", "store", "kernel", "session", "api"],
    ),
    (
        "cli",
        &[
            "model", "protocol", "agent", "sandbox", "store", "kernel", "session", "api", "config",
        ],
    ),
];

/// Which rooms may name a crate or a part of the standard library. What is not here is free to all, and so is all to tests.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("anyhow", &["cli"]),
    ("axum", &["api", "cli"]),
    ("bollard", &["sandbox"]),
    ("clap", &["cli", "config"]),
    ("humantime", &["cli", "config"]),
    ("hyper", &["api", "cli"]),
    ("hyper_util", &["api", "cli"]),
    ("libc", &["sandbox", "agent"]),
    ("rusqlite", &["store"]),
    ("rustix", &["sandbox", "agent", "store", "kernel", "cli"]),
    ("seccompiler", &["sandbox"]),
    ("std::env", &["config", "agent", "sandbox", "cli"]),
    ("std::process::Command", &["sandbox", "agent"]),
    ("tokio::process", &["sandbox", "agent"]),
    ("tokio_tungstenite", &["api", "cli"]),
    ("tracing_subscriber", &["cli"]),
];

/// The longest file, in lines. The aim is 300; this is where it fails.
const MAX_LINES: usize = 600;

#[test]
fn rooms_import_only_what_they_may() {
    let mut complaints = Vec::new();
    for file in sources("src") {
        let Some(room) = room_of(&file) else { continue };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            complaints.push(format!(
                "{}: `{room}` is no room; name it in tests/tidy.rs and in ARCHITECTURE.md",
                file.display()
            ));
            continue;
        };
        for (at, path) in paths(&fs::read_to_string(&file).unwrap(), &module_of(&file)) {
            let is_test = at.iter().any(|module| module == "tests");
            let inner = match path.first().map(String::as_str) {
                Some("crate") => path.get(1),
                _ => None,
            };
            if let Some(other) = inner
                && ROOMS.iter().any(|(name, _)| name == other)
                && *other != room
                && !allowed.contains(&other.as_str())
            {
                complaints.push(format!(
                    "{}: {room} must not import {other}",
                    file.display()
                ));
            }
            for (name, rooms) in OUTSIDE {
                let name_parts: Vec<_> = name.split("::").collect();
                if !is_test
                    && path.len() > name_parts.len()
                    && path.iter().zip(&name_parts).all(|(a, b)| a == b)
                    && !rooms.contains(&room.as_str())
                {
                    complaints.push(format!(
                        "{}: {room} must not use `{name}`, which belongs to {}",
                        file.display(),
                        rooms.join(" and ")
                    ));
                }
            }
        }
    }
    complaints.dedup();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut complaints = Vec::new();
    for file in sources("src").into_iter().chain(sources("tests")) {
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        if lines > MAX_LINES {
            complaints.push(format!(
                "{}: {lines} lines, at most {MAX_LINES} fit in a head",
                file.display()
            ));
        }
        if !text.starts_with("//! ") {
            complaints.push(format!(
                "{}: the first line is to say, after `//!`, what the file is for",
                file.display()
            ));
        }
        if file.ends_with("mod.rs") {
            complaints.push(format!(
                "{}: `foo.rs` beside `foo/`, no `mod.rs`",
                file.display()
            ));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn nothing_is_unfinished_without_an_issue() {
    let mut complaints = Vec::new();
    for file in sources("src").into_iter().chain(sources("tests")) {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let marker = ["TO", "DO"].concat();
            if line.contains(&marker) && !line.contains('#') {
                complaints.push(format!("{}:{}: name the issue", file.display(), number + 1));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_image_is_labelled_with_what_it_is_made_from() {
    let text =
        |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let dockerfile = text("kernel-image/Dockerfile");
    let version = format!("ARG VERSION={}\n", env!("CARGO_PKG_VERSION"));
    assert!(
        dockerfile.contains(&version),
        "kernel-image/Dockerfile: `{version}` is missing"
    );
    let protocol = text("src/protocol.rs");
    let generation = protocol
        .split_once("pub const GENERATION: u32 = ")
        .and_then(|(_, rest)| rest.split_once(';'))
        .map(|(generation, _)| format!("ARG PROTOCOL={generation}\n"))
        .unwrap();
    assert!(
        dockerfile.contains(&generation),
        "kernel-image/Dockerfile: `{generation}` is missing"
    );
}

#[test]
fn the_stories_that_are_told_in_containers_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = fs::read_to_string(root.join("tests/on_docker.sh")).unwrap();
    let (_, stories) = script.split_once("\nstories='").unwrap();
    let (stories, _) = stories.split_once('\'').unwrap();
    for story in stories.split(' ').filter(|story| *story != "chaos") {
        let file = root.join(format!("tests/it/{}.rs", story.replace("::", "/")));
        assert!(file.is_file(), "tests/on_docker.sh: there is no `{story}`");
    }
}

// --- reading sources ---------------------------------------------------------------------------------------------------

/// All Rust files below a directory of the repository.
fn sources(directory: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path);
            }
        }
    }
    found
}

/// The path of a file's module below the crate: `src/kernel/pool.rs` is `[kernel, pool]`.
fn module_of(file: &Path) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = file.strip_prefix(source).unwrap().with_extension("");
    module
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect()
}

/// The room of a file; none for the roots `lib.rs` and `main.rs`.
fn room_of(file: &Path) -> Option<String> {
    let room = module_of(file).remove(0);
    (room != "lib" && room != "main").then_some(room)
}

/// Every path with `::` in a source, groups in braces spelled out, `super` and `self` resolved to `crate::…`; each with the module it is in.
fn paths(text: &str, module: &[String]) -> Vec<(Vec<String>, Vec<String>)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    // Inline modules, with the depth of braces at which each ends.
    let (mut depth, mut inline) = (0, Vec::<(usize, String)>::new());
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.retain(|(end, _)| *end <= depth);
            }
            "mod" if tokens.get(at + 2).is_some_and(|token| token == "{") => {
                inline.push((depth + 1, tokens[at + 1].clone()));
            }
            token if is_name(token) && tokens.get(at + 1).is_some_and(|next| next == "::") => {
                let mut spelled = Vec::new();
                at = spell(&tokens, at, &mut Vec::new(), &mut spelled);
                let here: Vec<_> = module
                    .iter()
                    .chain(inline.iter().map(|(_, name)| name))
                    .cloned()
                    .collect();
                found.extend(
                    spelled
                        .into_iter()
                        .map(|path| (here.clone(), resolve(path, &here))),
                );
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Spells out the path that begins at a token, into `found`; returns where it ends.
fn spell(
    tokens: &[String],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> usize {
    let length = prefix.len();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    let next = spell(tokens, at, prefix, found);
                    // A token that no path begins with.
                    at = next.max(at + 1);
                }
                at += 1;
                break;
            }
            Some(name) if is_name(name) || name == "*" => {
                prefix.push(name.to_owned());
                at += 1;
                if tokens.get(at).is_some_and(|token| token == "::") {
                    at += 1;
                } else {
                    found.push(prefix.clone());
                    break;
                }
            }
            _ => break,
        }
    }
    prefix.truncate(length);
    at
}

/// Turns `self::…` and `super::…` into `crate::…`.
fn resolve(path: Vec<String>, here: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let selfs = path.iter().take_while(|part| *part == "self").count();
    if ups == 0 && selfs == 0 {
        return path;
    }
    let mut resolved = vec!["crate".to_owned()];
    resolved.extend_from_slice(&here[..here.len().saturating_sub(ups)]);
    resolved.extend_from_slice(&path[ups + selfs..]);
    resolved
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::`, `{`, `}`, `*` and other marks of a source, without comments and literals.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    let is = |at: usize, what: &str| {
        what.chars()
            .enumerate()
            .all(|(i, c)| chars.get(at + i) == Some(&c))
    };
    while at < chars.len() {
        let c = chars[at];
        if is(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if is(at, "/*") {
            while at < chars.len() && !is(at, "*/") {
                at += 1;
            }
            at += 2;
        } else if let Some(hashes) = raw_string(&chars, at) {
            let end = format!("\"{}", "#".repeat(hashes));
            while chars[at] != '"' {
                at += 1;
            }
            at += 1;
            while at < chars.len() && !is(at, &end) {
                at += 1;
            }
            at += end.len();
        } else if c == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' {
            // A character, or a lifetime, which is a name without a closing mark.
            if chars.get(at + 1) == Some(&'\\') {
                at += 3;
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            } else if chars.get(at + 2) == Some(&'\'') {
                at += 3;
            } else {
                at += 1;
            }
        } else if c.is_alphabetic() || c == '_' {
            let start = at;
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
            tokens.push(chars[start..at].iter().collect());
        } else if is(at, "::") {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            at += 1;
        }
    }
    tokens
}

/// How many `#` open a raw string here, if one begins here.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let before_is_name =
        at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') && chars[at - 1] != 'b';
    if chars[at] != 'r' || before_is_name {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

#[test]
fn paths_are_found_however_they_are_written() {
    let text = r##"
        use crate::{session, store::{self, Row}};
        use super::super::api::auth; // crate::comment
        const TEXT: &str = "crate::text"; const RAW: &str = r#"crate::"raw""#;
        fn f<'a>(x: &'a str) -> char { super::kernel::go('"', '\''); std::env::var("X") }
        mod tests { use super::*; use super::super::super::model::id; }
    "##;
    let module = ["room".to_owned(), "file".to_owned()];
    let found: Vec<_> = paths(text, &module)
        .into_iter()
        .map(|(_, path)| path.join("::"))
        .collect();
    assert_eq!(
        found,
        [
            "crate::session",
            "crate::store::self",
            "crate::store::Row",
            "crate::api::auth",
            "crate::room::kernel::go",
            "std::env::var",
            "crate::room::file::*",
            "crate::model::id",
        ]
    );
}
