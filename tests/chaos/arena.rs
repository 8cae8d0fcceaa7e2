//! The server, its sessions, and one fault after the other.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::conversation::Conversation;
use super::faults::Fault;
use super::host;
use crate::harness::backend::{docker, in_containers};
use crate::harness::server::Server;
use crate::harness::socket::Socket;

/// How many sessions talk at once.
const SESSIONS: usize = 3;
/// How many clients that never read are kept.
const SLOW_READERS: usize = 8;
const ARGUMENTS: [&str; 4] = ["--pool", "1", "--pool-max", "2"];

pub struct Arena {
    server: Arc<Server>,
    data_dir: PathBuf,
    conversations: Vec<Conversation>,
    slow_readers: Vec<Socket>,
    /// Every sandbox that was ever seen.
    sandboxes: BTreeSet<String>,
    random: fastrand::Rng,
    /// Removed with everything in it.
    _directory: tempfile::TempDir,
}

impl Arena {
    pub async fn open(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let server = Arc::new(Server::start_at(&data_dir, &ARGUMENTS).await);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut conversations = Vec::new();
        for number in 0..SESSIONS {
            let id = format!("chaos-{number}");
            conversations.push(Conversation::open(Arc::clone(&server), id, random.fork()).await);
        }
        Self {
            server,
            data_dir,
            conversations,
            slow_readers: Vec::new(),
            sandboxes: BTreeSet::new(),
            random,
            _directory: directory,
        }
    }

    /// One fault, and everything that must be true afterwards.
    pub async fn round(&mut self, round: usize, fault: Fault) {
        let target = self.random.usize(..SESSIONS);
        println!("chaos: round {round}: {fault:?} at {target}");
        // The others talk meanwhile.
        let mut waiting = Vec::new();
        for other in (0..SESSIONS).filter(|other| *other != target) {
            let talk = [Fault::None, Fault::ClientCut, Fault::OutputFlood];
            if let Some(fault) = talk.get(self.random.usize(..4)) {
                let cell = self.conversations[other].submit(*fault).await;
                waiting.push((other, cell));
            }
        }
        self.sandboxes.extend(host::sandboxes(&self.data_dir));
        let losses = self.losses();
        let conversation = &mut self.conversations[target];
        if self.random.bool() {
            conversation.go_back_and_forth().await;
        }
        let pid = conversation.check().await;
        let agent = host::agent(&self.data_dir, &conversation.marker());
        if fault == Fault::SlowReader {
            let socket = self.server.socket(&conversation.id, 0).await;
            self.slow_readers.push(socket);
            self.slow_readers.truncate(SLOW_READERS);
        }
        let cell = conversation.submit(fault).await;
        match fault {
            Fault::ClientCut => conversation.witness(cell).await,
            Fault::Interrupted => {
                conversation.follow_to_output(cell).await;
                conversation.interrupt().await;
            }
            Fault::ServerKilled => {
                conversation.follow_to_output(cell).await;
                self.restart().await;
            }
            Fault::AgentKilled => {
                conversation.follow_to_output(cell).await;
                host::kill(agent.expect("a session that runs has an agent"));
            }
            Fault::KernelKilled => {
                conversation.follow_to_output(cell).await;
                let kernel = host::kernel(agent.expect("a session that runs has an agent"), pid);
                host::kill(kernel.expect("an agent that runs has a kernel"));
            }
            _ => {}
        }
        waiting.push((target, cell));
        for (of, cell) in waiting {
            self.conversations[of].follow(cell).await;
        }
        for conversation in &mut self.conversations {
            conversation.check().await;
        }
        assert!(
            !super::STRICT || fault.may_lose() || self.losses() == losses,
            "{fault:?} has cost variables"
        );
    }

    /// How often variables were lost so far that were protected.
    fn losses(&self) -> usize {
        let losses = |conversation: &Conversation| {
            conversation.model.losses - conversation.model.unprotected_losses
        };
        self.conversations.iter().map(losses).sum()
    }

    /// Kills the server without a word, and starts another on what it has left.
    async fn restart(&mut self) {
        self.slow_readers.clear();
        self.server.kill_now();
        let server = Arc::new(Server::start_at(&self.data_dir, &ARGUMENTS).await);
        for conversation in &mut self.conversations {
            conversation.take_up(Arc::clone(&server)).await;
        }
        self.server = server;
    }

    /// Ends everything; nothing may be left. Returns how often variables were lost.
    pub async fn close(mut self) -> usize {
        self.slow_readers.clear();
        self.sandboxes.extend(host::sandboxes(&self.data_dir));
        let mut losses = 0;
        for conversation in self.conversations {
            losses += conversation.close().await;
        }
        let mut server = Arc::into_inner(self.server).expect("nobody else has it");
        assert!(server.stop().await.success());
        let sandboxes: Vec<String> = self.sandboxes.into_iter().collect();
        let mut left = host::leftovers(&self.data_dir, &sandboxes);
        if in_containers() {
            let all = docker(&["ps", "--all", "--format", "{{.Names}}"]).await;
            let is_ours = |name: &&str| sandboxes.iter().any(|sandbox| name.ends_with(sandbox));
            left.extend(all.lines().filter(is_ours).map(str::to_owned));
        }
        assert_eq!(left, Vec::<String>::new());
        losses
    }
}
