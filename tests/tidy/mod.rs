//! The rules of docs/architecture.md that a text search can see.

mod numbers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files below the project's directory, by their path in it.
struct Tree(Vec<(String, String)>);

/// Folders that hold what is installed or built.
const NOT_OURS: [&str; 10] = [
    "target",
    "node_modules",
    "dist",
    ".git",
    ".venv",
    ".runlane",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
];

impl Tree {
    fn of(folder: &str, endings: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}")).flatten() {
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                // A link, as worktrees have for .venv, is not followed.
                let kind = entry.file_type().unwrap();
                if kind.is_dir() && !NOT_OURS.contains(&&*name) {
                    folders.push(path);
                } else if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                    files.push((relative(&path, root), std::fs::read_to_string(&path).unwrap()));
                }
            }
        }
        assert!(!files.is_empty(), "no files in {folder}");
        Self(files)
    }

    /// `path: line` for each line of code in `scope` that `found` takes.
    fn lines(&self, scope: impl Fn(&str) -> bool, found: impl Fn(&str) -> bool) -> Vec<String> {
        let code = |line: &&str| !line.trim_start().starts_with("//");
        let files = self.0.iter().filter(|(path, _)| scope(path));
        files
            .flat_map(|(path, text)| text.lines().filter(code).map(move |line| (path, line)))
            .filter(|(_, line)| found(line))
            .map(|(path, line)| format!("{path}: {}", line.trim()))
            .collect()
    }
}

fn relative(path: &Path, root: &Path) -> String {
    let inside: PathBuf = path.strip_prefix(root).expect("it is inside").into();
    inside.to_string_lossy().into_owned()
}

fn rust() -> Tree {
    Tree::of("src", &[".rs"])
}

/// Whether the line names this crate or module path.
fn names(line: &str, what: &str) -> bool {
    line.match_indices(what).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + what.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        !part(before) && !part(after)
    })
}

#[track_caller]
fn nothing(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn no_sql_outside_the_store() {
    let found = rust().lines(
        // The embedded server administers itself.
        |path| !path.starts_with("src/store/") && !path.starts_with("src/embedded/"),
        |line| names(line, "sqlx"),
    );
    nothing("only src/store/ speaks SQL", &found);
}

#[test]
fn graphql_stays_at_the_edge() {
    let outside = |path: &str| !path.starts_with("src/graphql/") && !path.starts_with("src/http/");
    nothing("only the edge knows GraphQL", &rust().lines(outside, |line| names(line, "async_graphql")));
    let elsewhere = |path: &str| !path.starts_with("src/http/");
    nothing("only src/http/ knows axum", &rust().lines(elsewhere, |line| names(line, "axum")));
}

#[test]
fn the_domain_knows_no_framework() {
    let frameworks = ["sqlx", "async_graphql", "axum", "tokio", "reqwest", "hyper", "tracing"];
    let found = rust().lines(
        |path| path.starts_with("src/domain/"),
        |line| frameworks.iter().any(|name| names(line, name)),
    );
    nothing("src/domain/ is plain Rust", &found);
}

/// The modules, lowest first: each may use itself and those that are listed with it.
const USES: [(&str, &[&str]); 14] = [
    ("domain", &["config"]),
    ("config", &["domain"]),
    ("process", &[]),
    ("telemetry", &["config"]),
    ("auth", &["config", "domain"]),
    ("embedded", &["config", "process"]),
    ("executor", &["config", "domain", "process"]),
    ("store", &["domain"]),
    ("service", &["config", "domain", "store"]),
    ("orchestrator", &["config", "domain", "executor", "store"]),
    ("graphql", &["config", "domain", "service", "http"]),
    ("export", &["domain", "service"]),
    ("http", &["auth", "config", "domain", "export", "service"]),
    ("app", &["auth", "config", "domain", "executor", "graphql", "http", "orchestrator", "service", "store"]),
];

#[test]
fn dependencies_point_downward() {
    let tree = rust();
    let modules: BTreeSet<&str> = USES.iter().map(|(module, _)| *module).chain(["cli"]).collect();
    let of = |path: &str| path["src/".len()..].split(['/', '.']).next().unwrap_or_default().to_owned();
    let found: BTreeSet<String> = tree.0.iter().map(|(path, _)| of(path)).collect();
    // auth_tests.rs belongs to auth.
    let known = modules
        .iter()
        .map(|m| (*m).to_owned())
        .chain(["lib", "main", "auth_tests"].map(Into::into))
        .collect();
    assert_eq!(found, known, "a module is missing in USES, or is gone");
    for (module, allowed) in USES {
        let found = tree.lines(
            |path| of(path) == module && !path.ends_with("tests.rs"),
            |line| {
                let mut used = line.match_indices("crate::").map(|(at, what)| &line[at + what.len()..]);
                used.any(|rest| {
                    let name =
                        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                    modules.contains(name) && name != module && !allowed.contains(&name)
                })
            },
        );
        nothing(&format!("src/{module} may use {allowed:?} only"), &found);
    }
}

const LINES_MAX: usize = 400;

#[test]
fn files_fit_in_a_head() {
    let mut files = rust().0;
    for (folder, ending) in
        [("schema/migrations", ".sql"), ("tests", ".rs"), ("python", ".py"), ("console/src", ".ts")]
    {
        files.extend(Tree::of(folder, &[ending]).0);
    }
    let long: Vec<String> = files
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    nothing("split what is too long", &long);
}

#[test]
fn nothing_names_this_machine() {
    let endings = [
        ".rs", ".md", ".sql", ".sh", ".py", ".ts", ".tsx", ".toml", ".mjs", ".yml", ".example", "Makefile",
        "run",
    ];
    let home = std::env::var("HOME").ok().filter(|home| home.len() > 1).map(|home| format!("{home}/"));
    let root = env!("CARGO_MANIFEST_DIR");
    let host = nix::unistd::gethostname().unwrap().to_string_lossy().into_owned();
    let found: Vec<String> = Tree::of("", &endings)
        .0
        .iter()
        .flat_map(|(path, text)| text.lines().map(move |line| format!("{path}: {line}")))
        .filter(|line| {
            let said = line.split_once(": ").map_or("", |(_, text)| text);
            [Some(root), home.as_deref()].into_iter().flatten().any(|p| said.contains(p) && (p.ends_with('/') || names(said, p)))
                // A short host name may be any word.
                || host.len() > 8 && said.contains(&host)
        })
        .collect();
    nothing("no path and no name of a machine", &found);
}

#[test]
fn every_variable_that_is_mentioned_exists() {
    let known: BTreeSet<String> =
        runlane::config::settings().iter().map(|setting| setting.variable.to_owned()).collect();
    // The suffixes of the kinds make many of one: a stem stands for them.
    let exists =
        |name: &str| known.contains(name) || known.iter().any(|k| k.starts_with(&format!("{name}_")));
    let mut files = rust().0;
    for (folder, ending) in [("docs", ".md"), ("python", ".py")] {
        files.extend(Tree::of(folder, &[ending]).0);
    }
    for page in ["README.md", "quickstart.md", ".env.example", "Makefile"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        files.push((page.to_owned(), std::fs::read_to_string(path).unwrap()));
    }
    let mut unknown = BTreeSet::new();
    for (path, text) in &files {
        for (at, _) in text.match_indices("RUNLANE_") {
            let name: String = text[at..]
                .chars()
                .take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_')
                .collect();
            if !exists(name.trim_end_matches('_')) {
                unknown.insert(format!("{path}: {name}"));
            }
        }
    }
    nothing("document it in src/config/, or mend its name", &unknown.into_iter().collect::<Vec<_>>());
}

#[test]
fn the_code_map_names_every_folder() {
    let map = include_str!("../../docs/architecture.md");
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = if entry.path().is_dir() { format!("`src/{name}/`") } else { format!("`src/{name}`") };
        assert!(map.contains(&name) || name.ends_with("_tests.rs`"), "docs/architecture.md lacks {name}");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Tree::of("docs", &[".md"]).0;
    for page in ["README.md", "quickstart.md", "python/README.md"] {
        pages.push((page.to_owned(), std::fs::read_to_string(root.join(page)).unwrap()));
    }
    for (page, text) in &pages {
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            let path = root.join(page).with_file_name(target);
            assert!(target.is_empty() || target.starts_with("http") || path.exists(), "{page}: {target}");
        }
    }
}
