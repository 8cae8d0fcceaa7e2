//! The Python environment and the fonts.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Check, Level};
use crate::sandbox::native::Config;

const NAME: &str = "python environment";
const MAKE: &str = "make it with `make env`, or name another with `--python-env`";

pub(super) fn checks(config: &Config) -> Vec<Check> {
    vec![python(config), package(config), font()]
}

fn python(config: &Config) -> Check {
    let environment = &config.python_env;
    let fatal =
        |found: String| Check::lacking(Level::Fatal, NAME, found, "no kernel can be started", MAKE);
    let program = environment.join("bin/python");
    if !program.exists() {
        return fatal(format!(
            "`{}` is not there, or cannot be read by this user",
            program.display()
        ));
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the sandbox room, which may start processes"
    )]
    let output = Command::new(&program)
        .args([
            "-I",
            "-c",
            "import sys, IPython, numpy; print(sys.version.split()[0])",
        ])
        .stdin(Stdio::null())
        .output();
    match output {
        Err(error) => fatal(format!(
            "`{}` cannot be started: {error}",
            program.display()
        )),
        Ok(output) if !output.status.success() => {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.trim().lines().last().unwrap_or_default();
            fatal(format!(
                "`{}` does not import what a kernel needs: {last}",
                program.display()
            ))
        }
        Ok(output) => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let found = format!("`{}`, Python {version}", environment.display());
            if environment.join(".evercell-stamp").exists() {
                Check::ok(NAME, found)
            } else {
                Check::lacking(
                    Level::Degraded,
                    NAME,
                    format!("{found}, not made by `make env`, or not to its end"),
                    "packages may be missing or of other versions than those tested",
                    MAKE,
                )
            }
        }
    }
}

fn package(config: &Config) -> Check {
    const NAME: &str = "kernel package";
    if config.pykernel_dir.join("__main__.py").exists() {
        return Check::ok(NAME, format!("`{}`", config.pykernel_dir.display()));
    }
    Check::lacking(
        Level::Fatal,
        NAME,
        format!(
            "`{}` is not there, or cannot be read by this user",
            config.pykernel_dir.display()
        ),
        "no kernel can be started",
        "it lies in `kernel-image/pykernel` of the repository",
    )
}

fn font() -> Check {
    const NAME: &str = "fonts";
    /// How deep fonts lie below these directories.
    const DEPTH: usize = 4;
    let found = ["/usr/share/fonts", "/usr/local/share/fonts"]
        .into_iter()
        .any(|directory| has_cjk(Path::new(directory), DEPTH));
    if found {
        return Check::ok(NAME, "Noto Sans CJK");
    }
    Check::lacking(
        Level::Degraded,
        NAME,
        "no font for Chinese, Japanese and Korean",
        "such text shows as boxes in figures",
        "apt-get install fonts-noto-cjk, then make the environment anew",
    )
}

fn has_cjk(directory: &Path, depth: usize) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_font =
            name.starts_with("NotoSansCJK") && (name.ends_with(".ttc") || name.ends_with(".otf"));
        is_font
            || (depth > 0
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
                && has_cjk(&entry.path(), depth - 1))
    })
}
