//! What the documents say of files is true: links lead somewhere, and ARCHITECTURE.md knows where everything is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::command::{Result, root};

/// Links of every document of the repository, and the tables "Where things are".
pub(crate) fn check() -> Result {
    println!("$ documents: links, and the tables of files in ARCHITECTURE.md");
    let mut wrong = Vec::new();
    for document in documents()? {
        let text = read(&document)?;
        let folder = document.parent().unwrap_or(root());
        for link in links(&text) {
            if !folder.join(link).exists() {
                wrong.push(format!("{}: the link to {link} leads nowhere", shown(&document)));
            }
        }
    }
    let architecture = read(&root().join("ARCHITECTURE.md"))?;
    for (folder, named) in tables(&architecture) {
        let there = sources(&root().join(folder))?;
        wrong.extend(differences(folder, &named, &there));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn documents() -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for folder in [root().to_owned(), root().join("docs/decisions")] {
        let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        all.extend(
            entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "md")),
        );
    }
    all.sort();
    Ok(all)
}

/// Where Markdown links lead, but for those to other hosts and within the document.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.split("](").skip(1);
    let targets = starts.filter_map(|rest| rest.split([')', '#', ' ']).next());
    targets.filter(|t| !t.is_empty() && !t.contains(':'))
}

/// A folder, and what its table names there.
type Table<'a> = (&'a str, BTreeSet<&'a str>);

/// The tables under headings such as `### dlm-core/src`: what is in backquotes in the first column.
fn tables(text: &str) -> Vec<Table<'_>> {
    let sections = text.split("\n### ").skip(1);
    let parts = sections.filter_map(|s| s.split_once('\n')).filter(|(heading, _)| heading.ends_with("/src"));
    // Every second piece between backquotes is inside them.
    parts
        .map(|(heading, section)| {
            let end = section.find("\n#").unwrap_or(section.len());
            let cells =
                section[..end].lines().filter(|l| l.starts_with("| `")).filter_map(|l| l.split('|').nth(1));
            (heading, cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect())
        })
        .collect()
}

/// A folder's name, with a slash behind it, stands for everything in it. `lib.rs`, `main.rs` and tests need no row.
fn differences(folder: &str, named: &BTreeSet<&str>, there: &BTreeSet<String>) -> Vec<String> {
    let covers = |name: &str, file: &str| name == file || (name.ends_with('/') && file.starts_with(name));
    let gone = named.iter().filter(|n| !there.iter().any(|f| covers(n, f)));
    let gone = gone.map(|n| format!("ARCHITECTURE.md names {folder}/{n}, which is not there"));
    let new = there.iter().filter(|f| !named.iter().any(|n| covers(n, f)));
    let new = new.map(|f| format!("ARCHITECTURE.md does not say what is in {folder}/{f}"));
    gone.chain(new).collect()
}

/// Every source file below a folder that needs a row, relative to it.
fn sources(folder: &Path) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        for path in entries.filter_map(|e| Some(e.ok()?.path())) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "tests" {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs")
                && !matches!(&*name, "lib.rs" | "main.rs" | "tests.rs")
            {
                all.insert(path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned());
            }
        }
    }
    Ok(all)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_links() {
        let text = "[a](b.md) [c](https://h/x.md) ([d](e/f.rs) [g](#here) [h](i.md#there)\n[j](k/)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["b.md", "e/f.rs", "i.md", "k/"]);
    }

    #[test]
    fn tells_rows_from_files() {
        let text = "\n### a/src\n\n| file | what |\n|---|---|\n| `x.rs`, `y/` | `no.rs` |\n| `gone.rs` | |\n\n### Tests\n\n| `t.rs` | |\n";
        let all = tables(text);
        assert_eq!(all, [("a/src", BTreeSet::from(["x.rs", "y/", "gone.rs"]))]);
        let there = ["x.rs", "y/in.rs", "new.rs"].map(str::to_owned).into();
        let wrong = differences("a/src", &all[0].1, &there);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("a/src/gone.rs") && wrong[1].contains("a/src/new.rs"));
    }
}
