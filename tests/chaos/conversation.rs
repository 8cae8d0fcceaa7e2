//! One conversation: what is submitted, and what is heard of it.

use std::sync::Arc;

use evercell::model::event::Envelope;
use evercell::model::id::CellId;
use serde_json::{Value, json};

use super::faults::Fault;
use super::model::{Effect, Model, Variables};
use crate::harness::server::Server;

/// A cell that only looks at the variables that are ours.
const LOOK: &str = "import json, os\nprint(json.dumps({'pid': os.getpid(), 'ran': globals().get('v_ran', []), \
    'values': {k: v for k, v in globals().items() if k.startswith('v_') and k != 'v_ran'}}))";

/// The settings of every session: small, so that what is exceeded is exceeded soon.
fn settings() -> Value {
    json!({
        "memory_bytes": 160 << 20,
        "workspace_bytes": 16 << 20,
        "processes": 48,
        "cell_ms": 20_000,
    })
}

/// One session and its model.
pub struct Conversation {
    pub id: String,
    pub model: Model,
    /// What a client has seen that is cut off again and again.
    pub witness: Vec<Envelope>,
    server: Arc<Server>,
    random: fastrand::Rng,
    cells: usize,
}

impl Conversation {
    pub async fn open(server: Arc<Server>, id: String, random: fastrand::Rng) -> Self {
        let mut conversation = Self {
            id,
            model: Model::default(),
            witness: Vec::new(),
            server,
            random,
            cells: 0,
        };
        conversation.reopen().await;
        let marker = format!("open('{}', 'w').close()", conversation.marker());
        conversation.server.prints(&conversation.id, &marker).await;
        conversation
    }

    /// A file by which its sandbox is known on the host.
    pub fn marker(&self) -> String {
        format!(".{}", self.id)
    }

    /// Goes on with another server.
    pub async fn take_up(&mut self, server: Arc<Server>) {
        self.server = server;
        self.reopen().await;
    }

    async fn reopen(&mut self) {
        self.server.open_with(&self.id, settings()).await;
    }

    /// Submits a cell that sets some variables and then does what the fault does.
    pub async fn submit(&mut self, fault: Fault) -> CellId {
        self.cells += 1;
        let token = format!("t{}", self.cells);
        let count = self.random.usize(1..4);
        let sets: Vec<(String, i64)> = (0..count)
            .map(|_| {
                let name = format!("v_{}", self.random.lowercase());
                (name, self.random.i64(0..1000))
            })
            .collect();
        let mut code: String = sets
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        code += &format!("v_ran = globals().get('v_ran', []) + ['{token}']\n");
        code += &fault.body(&token);
        let mut request = json!({ "code": code, "key": token });
        if let Some(limit) = fault.limit_ms() {
            request["limit_ms"] = limit.into();
        }
        let path = format!("/v1/sessions/{}/cells", self.id);
        let answer = if fault == Fault::DuplicatedSubmit {
            let (one, two) = tokio::join!(
                self.server.post(&path, &request),
                self.server.post(&path, &request)
            );
            assert_eq!(one.json()["cell"], two.json()["cell"]);
            one
        } else {
            self.server.post(&path, &request).await
        };
        assert_eq!(answer.status, 202, "{answer:?}");
        let cell = answer.json()["cell"].as_str().unwrap().parse().unwrap();
        let effect = Effect {
            sets,
            prints: fault.prints(&token),
            token,
        };
        self.model.submitted(cell, effect);
        cell
    }

    /// Follows the log until something is true of it.
    pub async fn follow_until(&mut self, done: impl Fn(&Model) -> bool) {
        while !done(&self.model) {
            let after = self.model.position();
            let path = format!(
                "/v1/sessions/{}/events?after={after}&limit=2000&wait_ms=30000",
                self.id
            );
            let mut page = self.server.get(&path).await.json();
            let events = page["events"].take();
            let events: Vec<Envelope> = serde_json::from_value(events).unwrap();
            assert!(
                !events.is_empty(),
                "{}: nothing happens after {after}",
                self.id
            );
            for envelope in events {
                self.model.follow(envelope);
            }
        }
    }

    /// Follows the log to the end of a cell.
    pub async fn follow(&mut self, cell: CellId) {
        self.follow_until(|model| model.has_finished(cell)).await;
    }

    /// Follows the log until a cell has printed something.
    pub async fn follow_to_output(&mut self, cell: CellId) {
        self.follow_until(|model| model.has_printed(cell) || model.has_finished(cell))
            .await;
    }

    /// Looks at the kernel, which has to be as the log says. Returns the kernel's pid in its sandbox.
    pub async fn check(&mut self) -> i64 {
        let result = self.server.run(&self.id, LOOK).await;
        assert_eq!(result["status"], "ok", "{}: {result:#}", self.id);
        let cell = result["cell"].as_str().unwrap().parse().unwrap();
        self.follow(cell).await;
        let text = result["text"]["stdout"]["preview"].as_str().unwrap();
        let found: Value = serde_json::from_str(text).unwrap();
        let variables = Variables {
            values: serde_json::from_value(found["values"].clone()).unwrap(),
            ran: serde_json::from_value(found["ran"].clone()).unwrap(),
        };
        assert_eq!(
            variables, self.model.variables,
            "{}: the kernel is not as its log says",
            self.id
        );
        found["pid"].as_i64().unwrap()
    }

    /// Holds a checkpoint, goes back to one, or undoes the last cell: between cells, so that it is done or refused for a reason.
    pub async fn go_back_and_forth(&mut self) {
        let name = ["one", "two"][self.random.usize(..2)];
        let path = format!("/v1/sessions/{}", self.id);
        let answer = match self.random.usize(..4) {
            0 | 1 => {
                let path = format!("{path}/checkpoints/{name}");
                self.server.put(&path, &json!({})).await
            }
            2 => {
                let to = json!({ "checkpoint": name });
                self.server.post(&format!("{path}/rollback"), &to).await
            }
            _ => self.server.post(&format!("{path}/undo"), &json!({})).await,
        };
        if answer.status < 300 {
            let done = answer.json()["seq"].as_u64().unwrap();
            self.follow_until(|model| model.position() >= done).await;
        } else {
            let refused = ["unknown_checkpoint", "nothing_to_undo"];
            assert!(refused.contains(&answer.code().as_str()), "{answer:?}");
        }
    }

    /// Reads on over a WebSocket that is cut after some messages, until it has seen the end of a cell.
    pub async fn witness(&mut self, cell: CellId) {
        let ended = |envelope: &Envelope| matches!(&envelope.event, evercell::model::event::Event::CellFinished { cell: of, .. } if *of == cell);
        while !self.witness.iter().rev().take(50).any(ended) {
            let after = self.witness.last().map_or(0, |envelope| envelope.seq);
            let mut socket = self.server.socket(&self.id, after).await;
            for _ in 0..self.random.usize(1..20) {
                socket.receive().await;
                if socket.seen.last().is_some_and(ended) {
                    break;
                }
            }
            self.witness.extend(socket.cut());
        }
    }

    /// Interrupts what runs.
    pub async fn interrupt(&self) {
        let path = format!("/v1/sessions/{}/interrupt", self.id);
        assert_eq!(self.server.post(&path, &json!({})).await.status, 202);
    }

    /// Reads the whole log again, which has to be what was followed and what the witness has seen; then ends the session.
    pub async fn close(mut self) -> usize {
        let mut all: Vec<Envelope> = Vec::new();
        self.check().await;
        while all.len() < self.model.events.len() {
            let after = all.last().map_or(0, |envelope| envelope.seq);
            let path = format!("/v1/sessions/{}/events?after={after}&limit=2000", self.id);
            let mut page = self.server.get(&path).await.json();
            let events: Vec<Envelope> = serde_json::from_value(page["events"].take()).unwrap();
            assert!(
                !events.is_empty(),
                "{}: the log has become shorter",
                self.id
            );
            all.extend(events);
        }
        assert!(all == self.model.events, "{}: the log has changed", self.id);
        assert!(
            all.starts_with(&self.witness),
            "{}: a client that was cut off saw something else",
            self.id
        );
        let path = format!("/v1/sessions/{}", self.id);
        assert!(self.server.request("DELETE", &path, b"").await.status < 300);
        self.model.losses
    }
}
