//! Locates the program of a peer: given on the command line, built from the sources of this workspace if they
//! exist, or found beside this program.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;

use super::PeerName;

/// Why the program is not available.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The given program does not exist.
    #[error("there is no program at {}: give --peer-program another path", .0.display())]
    NotThere(PathBuf),
    /// There are neither sources nor a program.
    #[error("{peer} was not found at {}: {remedy}, or give --peer-program PATH", path.display())]
    Missing {
        /// Name of the peer.
        peer: &'static str,
        /// Path where the program was expected.
        path: PathBuf,
        /// The command that builds it.
        remedy: &'static str,
    },
    /// The build command failed.
    #[error(
        "{peer} cannot be built: `{command}` failed:\n{said}\nGive --peer-program PATH if there is one elsewhere"
    )]
    Build {
        /// Name of the peer.
        peer: &'static str,
        /// The command.
        command: String,
        /// Its standard error.
        said: String,
    },
    /// The build command cannot be executed.
    #[error("{peer} cannot be built: `{command}` cannot be run: {error}: {remedy}")]
    Tool {
        /// Name of the peer.
        peer: &'static str,
        /// The command.
        command: String,
        /// The system's error.
        error: io::Error,
        /// How to fix it.
        remedy: &'static str,
    },
}

/// One line of `cargo build --message-format json`.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
    target: Option<ArtifactTarget>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    name: String,
}

/// How a peer is built.
struct Recipe {
    /// The arguments of cargo, go or the script.
    command: &'static [&'static str],
    product: Product,
    /// Path of the program relative to this program's folder.
    beside: &'static str,
    remedy: &'static str,
}

/// How a build command reports the program's path.
#[derive(Clone, Copy)]
enum Product {
    /// cargo reports it under this name.
    Cargo(&'static str),
    /// The path is the output of the command.
    Printed,
    /// The path is fixed, relative to the sources.
    At(&'static str),
}

/// The program of a peer. Rebuilds it if the sources exist, so that the measured program matches them.
pub fn find_or_build(peer: PeerName, given: Option<&Path>) -> Result<PathBuf, PeerError> {
    if let Some(path) = given {
        return if path.is_file() { Ok(path.to_owned()) } else { Err(PeerError::NotThere(path.to_owned())) };
    }
    let recipe = recipe(peer);
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if sources.join("bench/peers/Cargo.toml").is_file() {
        return build(peer, &recipe, sources);
    }
    let path = std::env::current_exe().unwrap_or_default().with_file_name(recipe.beside);
    if path.is_file() {
        return Ok(path);
    }
    Err(PeerError::Missing { peer: peer.as_str(), path, remedy: recipe.remedy })
}

fn recipe(peer: PeerName) -> Recipe {
    let cargo =
        |command, target, beside, remedy| Recipe { command, product: Product::Cargo(target), beside, remedy };
    match peer {
        PeerName::TokioTungstenite => cargo(
            &["cargo", "build", "--release", "--package", "peers", "--bin", "peer-tokio-tungstenite"],
            "peer-tokio-tungstenite",
            "peer-tokio-tungstenite",
            "build it with `cargo build --release -p peers`",
        ),
        PeerName::Fastwebsockets => cargo(
            &["cargo", "build", "--release", "--package", "peers", "--bin", "peer-fastwebsockets"],
            "peer-fastwebsockets",
            "peer-fastwebsockets",
            "build it with `cargo build --release -p peers`",
        ),
        PeerName::Ceiling => cargo(
            &["cargo", "build", "--release", "--package", "wire", "--example", "ceiling"],
            "ceiling",
            "examples/ceiling",
            "build it with `cargo build --release -p wire --example ceiling`",
        ),
        PeerName::Gorilla => Recipe {
            command: &[
                "go",
                "build",
                "-C",
                "bench/peers/gorilla",
                "-buildvcs=false",
                "-o",
                "../../../target/peers/peer-gorilla",
                ".",
            ],
            product: Product::At("target/peers/peer-gorilla"),
            beside: "peer-gorilla",
            remedy: "install Go 1.26 or newer (https://go.dev/dl) and build it with \
                     `go build -C bench/peers/gorilla -o ../../../target/peers/peer-gorilla .`",
        },
        PeerName::Centrifugo => Recipe {
            command: &["bench/peers/centrifugo.sh", "fetch"],
            product: Product::Printed,
            beside: "centrifugo",
            remedy: "fetch it with `bench/peers/centrifugo.sh fetch`",
        },
    }
}

fn build(peer: PeerName, recipe: &Recipe, sources: &Path) -> Result<PathBuf, PeerError> {
    let [program, words @ ..] = recipe.command else { unreachable!("a recipe has a program") };
    let command = recipe.command.join(" ");
    eprintln!("{command}");
    // The path of a script is relative to the sources.
    let program = if program.contains('/') { sources.join(program) } else { PathBuf::from(program) };
    let mut build = Command::new(program);
    build.args(words).current_dir(sources).stdin(Stdio::null());
    if matches!(recipe.product, Product::Cargo(_)) {
        build.args(["--message-format", "json-render-diagnostics"]);
    }
    let name = peer.as_str();
    let output = build.output().map_err(|error| PeerError::Tool {
        peer: name,
        command: command.clone(),
        error,
        remedy: recipe.remedy,
    })?;
    let said = || String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    let path = if output.status.success() { built(recipe.product, &output, sources) } else { None };
    path.ok_or_else(|| PeerError::Build { peer: name, command, said: said() })
}

fn built(product: Product, output: &Output, sources: &Path) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(&output.stdout);
    match product {
        Product::At(path) => Some(sources.join(path)).filter(|path| path.is_file()),
        Product::Printed => Some(PathBuf::from(text.trim_end())).filter(|path| path.is_file()),
        Product::Cargo(target) => text.lines().find_map(|line| {
            let artifact: Artifact = serde_json::from_str(line).ok()?;
            artifact.executable.filter(|_| artifact.target.is_some_and(|found| found.name == target))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_program_that_is_not_there_is_an_error_with_the_flag() {
        let error =
            find_or_build(PeerName::Ceiling, Some(Path::new("/nowhere/ceiling"))).expect_err("nothing");
        assert!(error.to_string().contains("--peer-program"), "{error}");
    }

    #[test]
    fn the_program_is_the_one_that_cargo_names() {
        let lines = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"wire"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/x/other"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"ceiling"},"executable":"/x/examples/ceiling"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#
        );
        let output =
            Output { status: Default::default(), stdout: lines.as_bytes().to_vec(), stderr: Vec::new() };
        let path = built(recipe(PeerName::Ceiling).product, &output, Path::new("/"));
        assert_eq!(path, Some(PathBuf::from("/x/examples/ceiling")));
    }

    #[test]
    fn a_failed_build_shows_what_the_tool_said() {
        let recipe = Recipe {
            command: &["sh", "-c", "echo no such crate >&2; exit 1"],
            product: Product::Printed,
            beside: "x",
            remedy: "none",
        };
        let error = build(PeerName::Centrifugo, &recipe, Path::new("/")).expect_err("it failed").to_string();
        assert!(error.contains("no such crate") && error.contains("centrifugo cannot be built"), "{error}");
    }

    #[test]
    fn a_missing_tool_is_named_with_the_command_and_the_remedy() {
        let recipe = Recipe { command: &["no-such-tool-at-all", "build"], ..recipe(PeerName::Gorilla) };
        let error = build(PeerName::Gorilla, &recipe, Path::new("/")).expect_err("no tool").to_string();
        for says in ["gorilla cannot be built", "`no-such-tool-at-all build`", "install Go", "go build -C"] {
            assert!(error.contains(says), "{error}");
        }
    }
}
