//! A Python file as the cells of a notebook, cut where editors cut it: at lines that begin with `# %%`.

/// Cuts a file into cells. A cell without code is none.
///
/// A marker stands at the beginning of its line; what follows it is a title. Lines of `# %% [markdown]` are comments, so such a cell has no
/// code.
pub(super) fn cells(source: &str) -> Vec<String> {
    let mut cells = Vec::new();
    let mut cell = String::new();
    for line in source.lines() {
        if is_marker(line) {
            cells.push(std::mem::take(&mut cell));
        }
        cell.push_str(line);
        cell.push('\n');
    }
    cells.push(cell);
    cells.retain(|cell| has_code(cell));
    cells
}

fn is_marker(line: &str) -> bool {
    let rest = line
        .strip_prefix("# %%")
        .or_else(|| line.strip_prefix("#%%"));
    // `# %%time` is a magic that was commented out.
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '[', '%']))
}

/// Whether there is anything to run: not in comments, nor in the text that says what a file is for.
fn has_code(cell: &str) -> bool {
    for quotes in ["\"\"\"", "'''"] {
        let text = cell.trim().strip_prefix(quotes);
        if text.is_some_and(|text| text.find(quotes) == Some(text.len().saturating_sub(3))) {
            return false;
        }
    }
    cell.lines()
        .map(str::trim)
        .any(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_markers_is_one_cell() {
        assert_eq!(cells("a = 1\nb = 2"), ["a = 1\nb = 2\n"]);
        assert!(cells("").is_empty());
        assert!(cells("# only a comment\n\n").is_empty());
    }

    #[test]
    fn a_file_is_cut_at_markers() {
        let file =
            "import x\n# %% First\na = 1\n#%%\nb = 2\n# %% [markdown]\n# # Title\n# %%\nc = 3\n";
        assert_eq!(
            cells(file),
            [
                "import x\n",
                "# %% First\na = 1\n",
                "#%%\nb = 2\n",
                "# %%\nc = 3\n",
            ]
        );
    }

    #[test]
    fn what_a_file_says_of_itself_is_not_run() {
        let text = "\"\"\"A file.\n\nWith cells.\n\"\"\"\n";
        assert_eq!(cells(&format!("{text}\n# %%\na = 1\n")), ["# %%\na = 1\n"]);
        assert_eq!(cells(&format!("{text}a = 1\n")).len(), 1);
        assert_eq!(cells("\"\"\"a\"\"\" + \"\"\"b\"\"\"\n").len(), 1);
    }

    #[test]
    fn what_only_looks_like_a_marker_is_none() {
        for line in ["# %%time", "x = 1  # %%", "    # %%", "# %"] {
            assert_eq!(cells(&format!("a = 1\n{line}\nb = 2\n")).len(), 1, "{line}");
        }
    }
}
