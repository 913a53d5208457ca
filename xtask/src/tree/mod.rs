//! The files of this project, as the rules see them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

mod code;

pub(crate) use code::{Form, Mention};

/// All files that belong to the project, sorted by path: what git tracks, or would if it were added.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// One text file.
pub(crate) struct File {
    /// From the root of the project, with forward slashes.
    pub(crate) path: String,
    /// The whole of it.
    pub(crate) text: String,
    /// What its code mentions, if it is Rust.
    pub(crate) mentions: Vec<Mention>,
}

impl Tree {
    /// Reads the project. Files that are no text are left out.
    ///
    /// # Errors
    /// Git is missing, or a Rust file can't be taken apart.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for path in tracked(root)? {
            let whole = root.join(&path);
            // Git still names a file that was deleted but not yet committed; and a link may lead anywhere.
            if !whole.symlink_metadata().is_ok_and(|found| found.is_file()) {
                continue;
            }
            let bytes = std::fs::read(&whole).with_context(|| format!("can't read {path}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(File::new(path, text)?);
            }
        }
        ensure!(!files.is_empty(), "git names no files in {}", root.display());
        Ok(Self { files })
    }

    /// A tree for a test of a rule.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| File::new((*path).to_owned(), (*text).to_owned()).unwrap()).collect() }
    }

    /// The files that hold Rust.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// The file at exactly this path.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl File {
    fn new(path: String, text: String) -> Result<Self> {
        let mentions =
            if path.ends_with(".rs") { code::mentions(&text).with_context(|| format!("{path} is no Rust"))? } else { Vec::new() };
        Ok(Self { path, text, mentions })
    }

    /// Whether it holds Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Its lines with their numbers, from 1.
    pub(crate) fn numbered_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        // Not lines(): that would hide the carriage return of a file from elsewhere.
        (1..).zip(self.text.split('\n'))
    }

    /// The number of the first line that holds this; the first one if none does.
    pub(crate) fn line_of(&self, part: &str) -> usize {
        self.numbered_lines().find(|(_, line)| line.contains(part)).map_or(1, |(number, _)| number)
    }
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

fn tracked(root: &Path) -> Result<Vec<String>> {
    // A container often builds a checkout that another user owns; to list its files is harmless.
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("can't run git, which knows the files of the project")?;
    ensure!(listed.status.success(), "git can't list the files: {}", String::from_utf8_lossy(&listed.stderr).trim());
    let mut paths: Vec<String> = String::from_utf8(listed.stdout)?.split_terminator('\0').map(str::to_owned).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}
