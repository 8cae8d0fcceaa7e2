//! What is asked of the sandbox rather than of the kernel, and so may be asked whatever the kernel does: files, and what is in use.

use serde_json::{Map, Value};

use super::Actor;
use crate::kernel::files::Files;
use crate::session::command::{Denied, Reply};
use crate::session::view::Status;

/// How many askers may wait to hear what is in use.
const MAX_ASKERS: usize = 64;

impl Actor {
    pub(super) fn files(&mut self, reply: Reply<Files>) {
        match (self.kernel.connected(), self.kernel.status()) {
            (Some(kernel), _) => drop(reply.send(Ok(kernel.files()))),
            (None, Status::Starting) => self.waiting_for_files.push(reply),
            _ => {
                let _ = reply.send(Err(self.why_no_kernel().into()));
            }
        }
    }

    /// Asks the agent what the sandbox uses. It answers also while a cell runs.
    pub(super) fn usage(&mut self, reply: Reply<Map<String, Value>>) {
        let asked = match self.kernel.connected() {
            Some(_) if self.asks.len() >= MAX_ASKERS => Err(Denied::Busy),
            Some(kernel) => kernel
                .stat()
                .map_err(|error| Denied::NoKernel(error.to_string())),
            None => Err(self.why_no_kernel()),
        };
        match asked {
            Ok(number) => drop(self.asks.insert(number, reply)),
            Err(denied) => drop(reply.send(Err(denied.into()))),
        }
    }

    /// The agent has answered a request that is none of the kernel's.
    pub(super) fn answered(&mut self, number: u64, body: Value) {
        match self.asks.remove(&number) {
            Some(asker) => {
                let answer = match body {
                    Value::Object(body) => Ok(body),
                    _ => Err(Denied::Kernel("the agent's answer makes no sense".to_owned()).into()),
                };
                let _ = asker.send(answer);
            }
            // One that the kernel does not take: too much waits for it, or it is gone.
            None if self.comms.contains_key(&number) => {
                let why = body.get("error").and_then(Value::as_str);
                let why = why.unwrap_or("it was not taken").to_owned();
                if let Some(at_seq) = self.comms.remove(&number) {
                    self.end_comms([(number, at_seq)].into(), &why);
                }
            }
            None => self.start_answered(number, &body),
        }
    }

    fn why_no_kernel(&self) -> Denied {
        let problem = self.kernel.problem().unwrap_or("it is being started");
        Denied::NoKernel(problem.to_owned())
    }
}
