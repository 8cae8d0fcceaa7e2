//! Starts a kernel by executing a program in the sandbox.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use rustix::process::Pid;
use serde_json::{Map, Value};

use super::{Ends, StartError};

/// See the module.
pub(super) fn start(argv: &[String], jail: &Value, ends: &Ends) -> Result<Pid, StartError> {
    let program = argv.first().cloned().unwrap_or_default();
    let failed = |source: std::io::Error| StartError::Exec {
        program: program.clone(),
        source,
    };
    let jail = jail_file(jail).map_err(failed)?;
    let mut names = Map::new();
    let mut inherited = vec![jail];
    for (name, fd) in ends.named() {
        let copy = inheritable(fd).map_err(failed)?;
        names.insert(name.to_owned(), copy.as_raw_fd().into());
        inherited.push(copy);
    }
    let output = |fd: &OwnedFd| fd.try_clone().map(Stdio::from);
    #[expect(
        clippy::disallowed_methods,
        reason = "a kernel is a process, and tokio's own would wait for children behind our back"
    )]
    let mut command = Command::new(&program);
    command
        .args(&argv[1.min(argv.len())..])
        .arg("--jail")
        .arg(inherited[0].as_raw_fd().to_string())
        .env("EVERCELL_FDS", Value::Object(names).to_string())
        .stdin(Stdio::null())
        // What goes wrong before the kernel has taken its descriptors is to be seen too.
        .stdout(output(&ends.output.stdout).map_err(failed)?)
        .stderr(output(&ends.output.stderr).map_err(failed)?);
    let child = command.spawn().map_err(failed)?;
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(StartError::Ended)
}

/// A copy that survives execution. No other process is started meanwhile: there is one thread that does.
fn inheritable(fd: &OwnedFd) -> std::io::Result<OwnedFd> {
    let copy = fd.try_clone()?;
    rustix::io::fcntl_setfd(&copy, FdFlags::empty())?;
    Ok(copy)
}

fn jail_file(jail: &Value) -> std::io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create(
        "evercell-jail",
        MemfdFlags::empty(),
    )?);
    file.write_all(jail.to_string().as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}
