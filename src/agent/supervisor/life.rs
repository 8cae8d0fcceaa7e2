//! How kernels begin and end.

use std::sync::Arc;

use rustix::process::{Pid, WaitStatus};
use tokio::time::Instant;

use super::{Asker, Origin, Starting, Supervisor, Wanted};
use crate::agent::init;
use crate::agent::kernel_process::{self, KILL_AGAIN, Kernel, StartError};
use crate::protocol::agent::{Checkpoint, KernelExit, KernelStart, Kind, WatchedLimit};

/// How many children that ended while a kernel was started are remembered: one of them may be the kernel.
const MOST_REAPED: usize = 256;

impl Supervisor {
    /// Waits for children that have ended.
    pub(super) fn reap(&mut self) {
        loop {
            let kernel = self.kernel.as_ref();
            let unreaped = kernel.and_then(|kernel| kernel.pid.filter(|_| kernel.status.is_none()));
            match init::reap(unreaped) {
                Ok(Some((pid, status))) => self.ended(pid, status),
                Ok(None) => {
                    // Twins are children too, and are not waited for.
                    let twins = self.checkpoints.pids();
                    if !twins.is_empty()
                        && init::is_pid_one()
                        && init::others(&twins).next().is_none()
                    {
                        self.nobody_is_left();
                    }
                    return;
                }
                Err(()) => return self.nobody_is_left(),
            }
        }
    }

    fn nobody_is_left(&mut self) {
        if let Some(kernel) = &mut self.kernel
            && self.starting.is_none()
        {
            kernel.is_alone();
        }
    }

    /// Takes note of a child that has ended.
    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        let has_room = self.checkpoints.ended(pid);
        self.tell();
        if has_room {
            self.make_room();
        }
        match &mut self.kernel {
            Some(kernel) if kernel.pid == Some(pid) => {
                kernel.status = Some(status);
                // What it has started must not live on beside its successor.
                self.end_kernel();
            }
            _ if self.starting.is_some() && self.reaped.len() < MOST_REAPED => {
                self.reaped.push((pid, status));
            }
            _ => {}
        }
    }

    /// Ends the kernel and everything it has started. It is buried once all are dead and what they wrote is framed.
    pub(super) fn end_kernel(&mut self) {
        // One that has just announced itself is to be spared too.
        self.take_in_twins();
        if let Some(kernel) = &mut self.kernel {
            kernel.end(&self.checkpoints.pids());
            self.kill_again = Some(Instant::now() + KILL_AGAIN);
            self.more = true;
        }
    }

    /// Reports the end of a kernel, after everything it wrote.
    pub(super) fn bury(&mut self) {
        let Some(kernel) = self.kernel.take() else {
            return;
        };
        let exit = KernelExit {
            kernel: kernel.number,
            code: kernel.status.and_then(WaitStatus::exit_status),
            signal: kernel.status.and_then(WaitStatus::terminating_signal),
            out_of_memory: kernel.limit == Some(WatchedLimit::Memory)
                || self.meter.oom_kills() > kernel.oom_kills,
            peak_memory_bytes: self.meter.peak(None),
            limit: kernel.limit,
            violation: kernel.violation.map(|violation| violation.to_string()),
            checkpoint: self.checkpoints.newest().map(|before| Checkpoint {
                before: before.map(str::to_owned),
            }),
        };
        let json = serde_json::to_vec(&exit).expect("an exit is plain data");
        self.checkpoints.await_only(|_| false, "the kernel ended");
        self.tell();
        self.outbox.push(Kind::KernelExited, &json);
        self.kill_again = None;
        self.watch.kernel_ended();
        self.start_wanted();
    }

    fn start_wanted(&mut self) {
        if let Some(Wanted { asker, origin }) = self.wanted.take() {
            self.start_kernel(asker, origin);
        }
    }

    /// Starts a kernel, or wakes one, after the current one has been ended.
    pub(super) fn start_kernel(&mut self, asker: Asker, origin: Origin) {
        if let Origin::New(held) = origin {
            self.stop_copying("another kernel was asked for meanwhile");
            self.checkpoints.clear(held);
            self.tell();
        }
        if self.kernel.is_some() || self.starting.is_some() {
            if let Some(earlier) = self.wanted.replace(Wanted { asker, origin }) {
                self.answer_error(earlier.asker, "another kernel was asked for meanwhile");
            }
            self.end_kernel();
            return;
        }
        let twin = match origin {
            Origin::New(_) => None,
            Origin::Newest => self.checkpoints.take_newest(),
            Origin::Chosen => self.checkpoints.take_chosen(),
        };
        if twin.is_none() && !matches!(origin, Origin::New(_)) {
            return self.answer_error(asker, "there is no checkpoint");
        }
        match Kernel::prepare(self.kernels + 1, self.meter.oom_kills()) {
            Ok((kernel, ends)) => {
                self.kernel = Some(kernel);
                self.reaped.clear();
                let (source, jail) = (Arc::clone(&self.source), Arc::clone(&self.jail));
                let task = match twin {
                    Some(twin) => tokio::spawn(kernel_process::wake(twin, ends)),
                    None => tokio::spawn(kernel_process::start(source, jail, ends)),
                };
                self.starting = Some(Starting { asker, task });
            }
            Err(error) => self.answer_error(asker, &error.to_string()),
        }
    }

    /// Goes on after a start.
    pub(super) fn started(&mut self, result: Result<Pid, StartError>) {
        let (Some(starting), Some(kernel)) = (self.starting.take(), &mut self.kernel) else {
            unreachable!("a kernel is kept as long as it is being started");
        };
        match result {
            Ok(pid) => {
                kernel.started(pid);
                kernel.status = self
                    .reaped
                    .drain(..)
                    .find(|(reaped, _)| *reaped == pid)
                    .map(|(_, status)| status);
                self.kernels += 1;
                let start = KernelStart {
                    kernel: kernel.number,
                    request: starting.asker.number,
                };
                let json = serde_json::to_vec(&start).expect("a start is made of numbers");
                self.outbox.push(Kind::KernelStarted, &json);
                if kernel.is_alive() && kernel.status.is_none() {
                    let answer = serde_json::json!({ "kernel": kernel.number });
                    self.meter.reset_peak(Some(pid));
                    self.watch.kernel_began(pid);
                    self.watch.soon();
                    self.answer(starting.asker, &answer);
                } else {
                    // Dead already, which its exit will tell, or killed before its number was known.
                    self.end_kernel();
                    self.answer_error(starting.asker, &StartError::Ended.to_string());
                }
                // Its end may have been announced before it was known to be the kernel's.
                self.reap();
            }
            Err(error) => {
                self.kernel = None;
                self.kill_again = None;
                init::kill_everybody(None, false, &self.checkpoints.pids());
                self.answer_error(starting.asker, &error.to_string());
                self.start_wanted();
            }
        }
    }
}
