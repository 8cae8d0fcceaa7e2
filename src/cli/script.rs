//! A Python file as the cells of a notebook, cut where editors cut it: at lines that begin with `# %%`.

/// Cuts a file into cells. A cell without code is none.
///
/// A marker stands at the beginning of its line; what follows it is a title. Lines of `# %% [markdown]` are comments, so such a cell has no
/// code. Cells are padded with empty lines at their top, so that line numbers in a traceback are those of the file.
pub(super) fn cells(source: &str) -> Vec<String> {
    let mut cells = Vec::new();
    let mut cell = String::new();
    for (above, line) in source.lines().enumerate() {
        if is_marker(line) {
            cells.push(std::mem::replace(&mut cell, "\n".repeat(above)));
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

fn has_code(cell: &str) -> bool {
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
                "import x\n".to_owned(),
                "\n# %% First\na = 1\n".to_owned(),
                format!("{}#%%\nb = 2\n", "\n".repeat(3)),
                format!("{}# %%\nc = 3\n", "\n".repeat(7)),
            ]
        );
    }

    #[test]
    fn what_only_looks_like_a_marker_is_none() {
        for line in ["# %%time", "x = 1  # %%", "    # %%", "# %"] {
            assert_eq!(cells(&format!("a = 1\n{line}\nb = 2\n")).len(), 1, "{line}");
        }
    }
}
