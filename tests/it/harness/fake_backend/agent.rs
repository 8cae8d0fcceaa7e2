//! The agent of a fake sandbox, with its kernel.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use evercell::model::id::{CheckpointName, SandboxId};
use evercell::protocol::GENERATION;
use evercell::protocol::agent::{
    AgentHello, CANCEL, Checkpoint, Hello, KernelExit, KernelStart, Kind, UsageReport,
};
use evercell::protocol::checkpoints::{CheckpointReport, Fate, Named, Refusal, Target};
use evercell::protocol::codec::{Frame, FrameCodec};
use evercell::protocol::kernel::{NumberedRequest, Request};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::codec::Framed;

use super::Mood;

/// An agent with its kernel.
pub(super) struct Agent {
    id: SandboxId,
    mood: Arc<Mood>,
    last_request: u64,
    last_execution: u64,
    kept: Vec<Frame>,
    kernels: u64,
    alive: bool,
    /// It has not said yet that it is ready.
    is_late: bool,
    count: u32,
    cell: Option<Running>,
    /// A checkpoint is to be made once the cell is over.
    saves: Option<Sleep>,
    /// The kernel is to die once the cell is over.
    dies: Option<i32>,
    /// What is to be printed once the cell is over.
    background: Option<String>,
    /// Requests that came while something ran.
    behind: VecDeque<NumberedRequest>,
    checkpoint: Option<Twin>,
    /// Checkpoints with names, and the counts of cells in them.
    held: HashMap<CheckpointName, u32>,
}

/// What a kernel goes back to.
struct Twin {
    count: u32,
    before: Option<String>,
    sleep: Sleep,
}

/// Whether a checkpoint wakes.
#[derive(Clone, Copy, PartialEq)]
enum Sleep {
    Light,
    /// It says that it is awake when it is about to be ended.
    Slow,
    Broken,
}

/// A script that is being run.
struct Running {
    id: u64,
    /// It is what a comm message sets off, and no cell.
    is_comm: bool,
    silent: bool,
    rest: VecDeque<String>,
    blocked: Option<Blocked>,
}

enum Blocked {
    Deaf,
    Resting(Instant),
    Waiting,
    Stubborn,
    Immortal,
    Asking,
}

impl Agent {
    pub(super) fn new(id: SandboxId, mood: Arc<Mood>) -> Self {
        Self {
            id,
            mood,
            last_request: 0,
            last_execution: 0,
            kept: Vec::new(),
            kernels: 0,
            is_late: false,
            alive: false,
            count: 0,
            cell: None,
            saves: None,
            dies: None,
            background: None,
            behind: VecDeque::new(),
            checkpoint: None,
            held: HashMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut accept: mpsc::Receiver<DuplexStream>) {
        let mut control: Option<Framed<DuplexStream, FrameCodec>> = None;
        let mut sent = 0;
        loop {
            if let Some(frames) = control.as_mut()
                && !self.mood.mute.load(Ordering::Relaxed)
            {
                while sent < self.kept.len() {
                    let _ = frames.send(self.kept[sent].clone()).await;
                    sent += 1;
                }
            }
            tokio::select! {
                stream = accept.recv() => {
                    let Some(stream) = stream else { return };
                    let mut frames = Framed::new(stream, FrameCodec);
                    let Some(Ok(first)) = frames.next().await else { continue };
                    let hello: Hello = serde_json::from_slice(&first.payload).expect("the server greets");
                    let own = AgentHello {
                        generation: self.mood.generation.load(Ordering::Relaxed), sandbox: self.id, last: self.kept.len() as u64,
                        kernels: self.kernels, alive: self.alive, executing: self.cell.as_ref().filter(|cell| !cell.is_comm).map(|cell| cell.id),
                        starting: false, last_request: self.last_request, last_execution: self.last_execution,
                    };
                    let _ = frames.send(frame(Kind::AgentHello, 0, &own)).await;
                    sent = usize::try_from(hello.resume_after).expect("a count of frames");
                    control = Some(frames);
                }
                () = rested(self.cell.as_ref()) => {
                    self.cell.as_mut().expect("it rests").blocked = None;
                    self.step();
                }
                received = next(&mut control) => match received {
                    Some(Ok(_)) if self.mood.deaf.load(Ordering::Relaxed) => {}
                    Some(Ok(received)) => if let Some(answer) = self.handle(received) {
                        let _ = control.as_mut().expect("it has just spoken").send(answer).await;
                    },
                    _ => control = None,
                },
            }
        }
    }

    fn handle(&mut self, received: Frame) -> Option<Frame> {
        let kind = Kind::try_from(received.kind).expect("the server speaks the protocol");
        match kind {
            Kind::Request | Kind::StartKernel | Kind::Restore | Kind::Hold
                if received.number <= self.last_request =>
            {
                return None;
            }
            Kind::Execute if received.number <= self.last_execution => return None,
            Kind::Request | Kind::StartKernel | Kind::Restore | Kind::Hold => {
                self.last_request = received.number;
            }
            Kind::Execute => self.last_execution = received.number,
            _ => {}
        }
        match kind {
            Kind::StartKernel => {
                if std::mem::take(&mut self.is_late) {
                    self.say_ready();
                }
                if self.alive {
                    self.exit(None, Some(9), false);
                }
                self.checkpoint = None;
                self.start(0);
                return Some(frame(Kind::Answer, received.number, &json!({})));
            }
            Kind::Hold => {
                let Named { name } = serde_json::from_slice(&received.payload).expect("a name");
                self.held.insert(name.clone(), self.count);
                self.report(received.number, Fate::Held(name));
            }
            Kind::Restore if received.payload != br#""newest""#[..] => {
                let target = serde_json::from_slice(&received.payload).expect("a target");
                self.go_back(received.number, &target);
            }
            Kind::Restore => {
                let answer = match self.checkpoint.take() {
                    Some(twin) if twin.sleep == Sleep::Light => {
                        self.start(twin.count);
                        json!({})
                    }
                    Some(twin) if twin.sleep == Sleep::Slow => {
                        self.begin(twin.count);
                        self.is_late = true;
                        json!({})
                    }
                    _ => json!({ "error": "it sleeps" }),
                };
                return Some(frame(Kind::Answer, received.number, &answer));
            }
            Kind::Request | Kind::Execute => {
                let request: NumberedRequest =
                    serde_json::from_slice(&received.payload).expect("a request");
                self.request(request);
            }
            Kind::Interrupt => match self.cell.as_mut().and_then(|cell| cell.blocked.take()) {
                Some(Blocked::Deaf) if received.payload != CANCEL => {
                    self.cell.as_mut().expect("it runs").blocked = Some(Blocked::Deaf)
                }
                Some(blocked @ (Blocked::Stubborn | Blocked::Immortal)) => {
                    self.cell.as_mut().expect("it runs").blocked = Some(blocked)
                }
                Some(_) => self.fail("KeyboardInterrupt", ""),
                None => {}
            },
            Kind::KillKernel => {
                let blocked = self.cell.as_ref().and_then(|cell| cell.blocked.as_ref());
                if !matches!(blocked, Some(Blocked::Immortal)) {
                    self.exit(None, Some(9), false);
                }
            }
            Kind::Configure => return Some(frame(Kind::Answer, received.number, &json!({}))),
            Kind::Ping => return Some(frame(Kind::Pong, received.number, &json!({}))),
            _ => {}
        }
        None
    }

    fn request(&mut self, NumberedRequest { id, request }: NumberedRequest) {
        if self.cell.is_some() && !matches!(request, Request::InputReply { .. }) {
            return self.behind.push_back(NumberedRequest { id, request });
        }
        match request {
            Request::Execute(execute) => {
                self.count += u32::from(execute.store_history && !execute.silent);
                if let Some(twin) = &mut self.checkpoint
                    && twin.before.is_none()
                {
                    twin.before = Some(execute.cell.clone());
                }
                let rest = execute.code.lines().map(str::to_owned).collect();
                self.cell = Some(Running {
                    id,
                    is_comm: false,
                    silent: execute.silent,
                    rest,
                    blocked: None,
                });
                self.step();
            }
            Request::CommMsg { data, .. } => {
                let script = data["script"].as_str().unwrap_or_default();
                self.cell = Some(Running {
                    id,
                    is_comm: true,
                    silent: true,
                    rest: script.lines().map(str::to_owned).collect(),
                    blocked: None,
                });
                self.step();
            }
            Request::InputReply { value, .. } => {
                let Some(cell) = self.cell.as_mut() else {
                    return;
                };
                if !matches!(cell.blocked.take(), Some(Blocked::Asking)) {
                    return;
                }
                match value {
                    Some(value) => {
                        self.keep(Kind::Stdout, format!("{value}\n").into());
                        self.step();
                    }
                    None => self.fail("EOFError", "nobody answered"),
                }
            }
            Request::Complete { .. } => {
                self.reply(id, json!({ "matches": [{ "text": "print", "type": "function" }], "start": 0, "end": 2 }));
            }
            _ => self.reply(id, json!({})),
        }
    }

    /// Runs the script until it is blocked or over.
    fn step(&mut self) {
        while let Some(line) = self.cell.as_mut().and_then(|cell| cell.rest.pop_front()) {
            let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let block = |cell: &mut Option<Running>, blocked| {
                cell.as_mut().expect("it runs").blocked = Some(blocked)
            };
            match command {
                "print" => self.keep(Kind::Stdout, format!("{rest}\n").into()),
                "write" => self.keep(Kind::Stdout, rest.to_owned().into()),
                "warn" => self.keep(Kind::Stderr, format!("{rest}\n").into()),
                "show" => {
                    self.message(json!({ "type": "display_data", "data": { "text/plain": rest } }))
                }
                "result" => {
                    let count = self.count;
                    self.message(json!({ "type": "execute_result", "execution_count": count, "data": { "text/plain": rest } }));
                }
                "error" => {
                    let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
                    return self.fail(name, text);
                }
                "ask" => {
                    let request = format!("r{}", self.kept.len());
                    self.message(json!({ "type": "input_request", "request": request, "prompt": rest, "password": false }));
                    return block(&mut self.cell, Blocked::Asking);
                }
                "rest" => {
                    let time = Duration::from_secs(rest.parse().expect("seconds"));
                    return block(&mut self.cell, Blocked::Resting(Instant::now() + time));
                }
                "wait" => return block(&mut self.cell, Blocked::Waiting),
                "deaf" => return block(&mut self.cell, Blocked::Deaf),
                "immortal" => return block(&mut self.cell, Blocked::Immortal),
                "stubborn" => return block(&mut self.cell, Blocked::Stubborn),
                "die" => return self.exit(None, Some(rest.parse().expect("a signal")), false),
                "exit" => return self.exit(Some(rest.parse().expect("a code")), None, false),
                "checkpoint" => {
                    self.saves = Some(match rest {
                        "broken" => Sleep::Broken,
                        "slow" => Sleep::Slow,
                        _ => Sleep::Light,
                    })
                }
                "background" => self.background = Some(format!("{rest}\n")),
                "comm" => self.message(json!({ "type": "comm_msg", "comm_id": "c", "data": rest })),
                "clear" => self.message(json!({ "type": "clear_output", "wait": false })),
                "afterwards" => self.dies = Some(rest.parse().expect("a signal")),
                "memory" => {
                    let id = self.cell.as_ref().expect("it runs").id;
                    let report = json!({ "id": id, "used_bytes": rest.parse::<u64>().expect("a number"), "limit_bytes": 1000 });
                    self.keep(Kind::MemoryHigh, report.to_string().into());
                }
                "cpu" => {
                    let id = self.cell.as_ref().expect("it runs").id;
                    let report = json!({ "id": id, "used_ms": 1000 });
                    self.keep(Kind::CpuSpent, report.to_string().into());
                }
                "oom" => return self.exit(None, Some(9), true),
                _ => {}
            }
        }
        self.finish(json!({ "status": "ok" }));
    }

    fn fail(&mut self, ename: &str, evalue: &str) {
        let error = json!({ "ename": ename, "evalue": evalue, "traceback": [format!("{ename}: {evalue}")] });
        let mut message = error.clone();
        let is_comm = self.cell.as_ref().is_some_and(|cell| cell.is_comm);
        message["type"] = if is_comm {
            "asynchronous_error"
        } else {
            "error"
        }
        .into();
        self.message(message);
        self.finish(json!({ "status": "error", "error": error }));
    }

    fn finish(&mut self, mut reply: Value) {
        let Some(cell) = self.cell.take() else { return };
        if cell.is_comm {
            return self.finished(cell.id, json!({}));
        }
        if !cell.silent {
            reply["execution_count"] = self.count.into();
        }
        let usage = UsageReport {
            id: cell.id,
            wall_us: 1000,
            cpu_us: 1000,
            peak_memory_bytes: None,
            checkpoint: self
                .checkpoint
                .as_ref()
                .and_then(|twin| twin.before.clone()),
        };
        self.keep(
            Kind::Usage,
            serde_json::to_vec(&usage).expect("JSON").into(),
        );
        self.finished(cell.id, reply);
    }

    /// Answers, does what is left to do, and goes on with what waits.
    fn finished(&mut self, id: u64, reply: Value) {
        self.reply(id, reply);
        if let Some(sleep) = self.saves.take() {
            self.checkpoint = Some(Twin {
                count: self.count,
                before: None,
                sleep,
            });
        }
        if let Some(signal) = self.dies.take() {
            self.exit(None, Some(signal), false);
        }
        if let Some(text) = self.background.take() {
            self.keep(Kind::Stdout, text.into());
        }
        if let Some(next) = self.behind.pop_front() {
            self.request(next);
        }
    }

    /// Goes back to a checkpoint with a name; a broken one is not there, and one named `deaf` does not wake.
    fn go_back(&mut self, number: u64, target: &Target) {
        let (name, count) = match target {
            Target::Held(name) => (name.to_string(), self.held.get(name).copied()),
            Target::Undo | Target::Newest => (String::new(), None),
        };
        let Some(count) = count.filter(|_| name != "broken") else {
            return self.report(number, Fate::Refused(Refusal::NotMade));
        };
        self.report(number, Fate::Chosen(None));
        if self.alive {
            self.exit(None, Some(9), false);
        }
        if name != "deaf" {
            self.start(count);
        }
    }

    fn report(&mut self, request: u64, fate: Fate) {
        let report = CheckpointReport {
            request: Some(request),
            fate,
        };
        self.keep(
            Kind::Checkpoint,
            serde_json::to_vec(&report).expect("JSON").into(),
        );
    }

    fn start(&mut self, count: u32) {
        self.begin(count);
        self.say_ready();
    }

    fn say_ready(&mut self) {
        self.message(json!({ "type": "ready", "python": "3.fake", "generation": GENERATION, "execution_count": self.count }));
    }

    fn begin(&mut self, count: u32) {
        self.kernels += 1;
        self.alive = true;
        self.count = count;
        let start = KernelStart {
            kernel: self.kernels,
            request: self.last_request,
        };
        self.keep(
            Kind::KernelStarted,
            serde_json::to_vec(&start).expect("JSON").into(),
        );
    }

    fn exit(&mut self, code: Option<i32>, signal: Option<i32>, out_of_memory: bool) {
        self.cell = None;
        self.behind.clear();
        self.alive = false;
        let exit = KernelExit {
            kernel: self.kernels,
            code,
            signal,
            out_of_memory,
            peak_memory_bytes: None,
            limit: None,
            violation: None,
            checkpoint: self.checkpoint.as_ref().map(|twin| Checkpoint {
                before: twin.before.clone(),
            }),
        };
        self.keep(
            Kind::KernelExited,
            serde_json::to_vec(&exit).expect("JSON").into(),
        );
    }

    fn message(&mut self, json: Value) {
        self.keep(Kind::Message, with_length(&json));
    }

    fn reply(&mut self, id: u64, mut json: Value) {
        json["id"] = id.into();
        self.keep(Kind::Reply, with_length(&json));
    }

    fn keep(&mut self, kind: Kind, payload: Bytes) {
        let number = self.kept.len() as u64 + 1;
        self.kept.push(Frame {
            kind: kind as u8,
            flags: 0,
            number,
            payload,
        });
    }
}

/// Waits for the end of a rest.
async fn rested(cell: Option<&Running>) {
    match cell.and_then(|cell| cell.blocked.as_ref()) {
        Some(Blocked::Resting(until)) => sleep_until(*until).await,
        _ => std::future::pending().await,
    }
}

async fn next(
    control: &mut Option<Framed<DuplexStream, FrameCodec>>,
) -> Option<Result<Frame, evercell::protocol::codec::CodecError>> {
    match control {
        Some(frames) => frames.next().await,
        None => std::future::pending().await,
    }
}

fn frame(kind: Kind, number: u64, value: &impl serde::Serialize) -> Frame {
    Frame {
        kind: kind as u8,
        flags: 0,
        number,
        payload: serde_json::to_vec(value).expect("JSON").into(),
    }
}

fn with_length(json: &Value) -> Bytes {
    let json = serde_json::to_vec(json).expect("JSON");
    let mut bytes = u32::try_from(json.len())
        .expect("a short message")
        .to_le_bytes()
        .to_vec();
    bytes.extend(json);
    bytes.into()
}
