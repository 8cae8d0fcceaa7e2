//! What the server asks for, kind by kind.

use bytes::Bytes;
use serde_json::json;

use super::{Asker, Origin, Supervisor, Wanted};
use crate::agent::ExitReason;
use crate::protocol::agent::{Kind, Stat};
use crate::protocol::codec::Frame;

impl Supervisor {
    /// Does what a frame asks for.
    pub(super) fn obey(&mut self, frame: Frame) {
        let asker = Asker {
            connection: self.connection,
            number: frame.number,
        };
        match Kind::try_from(frame.kind) {
            Ok(Kind::Ack) => {
                if let Some(control) = &self.control {
                    control.ack(&mut self.outbox, frame.number);
                }
            }
            Ok(Kind::Request | Kind::StartKernel | Kind::Restore | Kind::Hold | Kind::Release)
                if frame.number <= self.last_request => {}
            Ok(Kind::Execute) if frame.number <= self.last_execution => {}
            Ok(Kind::Request) => {
                self.last_request = frame.number;
                self.request(asker, frame.payload, false);
            }
            Ok(Kind::Execute) => {
                self.last_execution = frame.number;
                self.request(asker, frame.payload, true);
            }
            Ok(Kind::Interrupt) => {
                if let Some(kernel) = &self.kernel {
                    kernel.interrupt(&frame.payload);
                }
            }
            Ok(Kind::StartKernel) => {
                if let Some(held) = self.parse::<Option<_>>(asker, &frame.payload) {
                    self.replace(asker, Origin::New(held.unwrap_or_default()));
                }
            }
            Ok(Kind::Restore) => self.restore(asker, &frame.payload),
            Ok(Kind::Hold) => self.hold(asker, &frame.payload),
            Ok(Kind::Release) => self.release(asker, &frame.payload),
            Ok(Kind::KillKernel) => {
                if let Some(Wanted { asker, .. }) = self.wanted.take() {
                    self.answer_error(asker, "the kernel was ended before it had started");
                }
                self.stop_copying("the kernel was ended");
                self.end_kernel();
            }
            Ok(Kind::Configure) => self.configure(asker, &frame.payload),
            Ok(Kind::Stat) => self.stat(asker),
            Ok(Kind::Ping) => {
                self.with_control(|control| {
                    control.answer(0, Kind::Pong, asker.number, Bytes::new())
                });
            }
            Ok(Kind::Shutdown) => self.end(ExitReason::Shutdown),
            Ok(_) | Err(_) => {
                let error = format!("frame kind {} is not a request", frame.kind);
                self.answer_error(asker, &error);
            }
        }
    }

    /// Puts another kernel in the place of the one that is there.
    pub(super) fn replace(&mut self, asker: Asker, origin: Origin) {
        self.last_request = asker.number;
        if self.ending.is_some() {
            self.answer_error(asker, "the sandbox is being ended");
        } else {
            self.start_kernel(asker, origin);
        }
    }

    fn request(&mut self, asker: Asker, json: Bytes, is_execution: bool) {
        let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.is_alive()) else {
            self.answer_error(asker, "there is no kernel");
            return;
        };
        let id = asker.number;
        let pid = kernel.pid;
        let execution = is_execution.then(|| json.clone());
        match kernel
            .requests
            .send(id, json, is_execution, pid, &mut self.meter)
        {
            Ok(()) => {
                if let Some(execution) = execution {
                    self.checkpoints.execution_began(id, &execution);
                    kernel.oom_kills = self.meter.oom_kills();
                    self.watch.cell_began();
                }
            }
            Err(error) => self.answer_error(asker, &error.to_string()),
        }
    }

    fn configure(&mut self, asker: Asker, json: &[u8]) {
        match serde_json::from_slice(json) {
            Ok(config) => {
                self.config = config;
                self.workspace.set_limit(self.config.workspace_bytes);
                self.watch.soon();
                self.answer(asker, &json!({}));
            }
            Err(error) => {
                self.answer_error(asker, &format!("the limits cannot be read: {error}"));
            }
        }
    }

    fn stat(&mut self, asker: Asker) {
        let pid = self.kernel.as_ref().and_then(|kernel| kernel.pid);
        let stat = Stat {
            memory_bytes: Some(self.meter.memory(pid)),
            cpu_us: self.meter.cpu_us(pid),
            processes: self.meter.tasks(pid),
            workspace_bytes: self.workspace.used(),
        };
        self.watch.soon();
        let stat = serde_json::to_value(stat).expect("a stat is made of numbers");
        self.answer(asker, &stat);
    }
}
