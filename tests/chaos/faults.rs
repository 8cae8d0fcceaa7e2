//! What can go wrong, and the code of cells that do it.

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing: conversations go on.
    None,
    /// The client's connection is cut while a cell runs, and taken up again.
    ClientCut,
    /// A client that never reads.
    SlowReader,
    /// The same cell is submitted twice, with its key.
    DuplicatedSubmit,
    /// The server is killed and started again.
    ServerKilled,
    /// PID 1 of the sandbox is killed from the host.
    AgentKilled,
    /// The kernel's process is killed from the host.
    KernelKilled,
    /// The cell reads where nothing is.
    Segfault,
    /// The cell ends its process.
    Exit,
    /// The cell aborts its process.
    Abort,
    /// The cell kills its process.
    SelfKilled,
    /// The cell takes more memory than there is.
    MemoryBomb,
    /// The cell does not return from C.
    EndlessC,
    /// The cell swallows every interrupt.
    SwallowedInterrupt,
    /// The cell ignores SIGINT.
    IgnoredInterrupt,
    /// The cell starts as many processes as it can.
    ForkBomb,
    /// The cell prints as fast as it can.
    OutputFlood,
    /// The cell fills its workspace.
    DiskFull,
    /// The cell runs into its deadline.
    Deadline,
    /// The cell is interrupted.
    Interrupted,
    /// The cell raises an exception.
    Exception,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::None,
        Self::Segfault,
        Self::ClientCut,
        Self::KernelKilled,
        Self::OutputFlood,
        Self::ServerKilled,
        Self::Exit,
        Self::Deadline,
        Self::SlowReader,
        Self::Abort,
        Self::Exception,
        Self::MemoryBomb,
        Self::DuplicatedSubmit,
        Self::EndlessC,
        Self::Interrupted,
        Self::AgentKilled,
        Self::ForkBomb,
        Self::SelfKilled,
        Self::SwallowedInterrupt,
        Self::DiskFull,
        Self::IgnoredInterrupt,
    ];

    /// Whether the design lets it cost the variables: the sandbox itself is gone.
    pub fn may_lose(self) -> bool {
        self == Self::AgentKilled
    }

    /// How long the cell may run, where that is part of the fault.
    pub fn limit_ms(self) -> Option<u64> {
        match self {
            Self::Deadline | Self::EndlessC | Self::SwallowedInterrupt | Self::IgnoredInterrupt => {
                Some(400)
            }
            _ => None,
        }
    }

    /// What a cell does after it has set its variables. `token` is its own.
    pub fn body(self, token: &str) -> String {
        match self {
            Self::Segfault => "import ctypes\nctypes.string_at(0)".to_owned(),
            Self::Exit => "import os\nos._exit(3)".to_owned(),
            Self::Abort => "import os\nos.abort()".to_owned(),
            Self::SelfKilled => "import os\nos.kill(os.getpid(), 9)".to_owned(),
            Self::MemoryBomb => "def bomb():\n    hoard = []\n    while True:\n        \
                hoard.append(bytearray(b'x') * (8 << 20))\nbomb()"
                .to_owned(),
            // A loop in C that never looks whether there was a signal.
            Self::EndlessC => "import itertools\nsum(itertools.repeat(0))".to_owned(),
            Self::SwallowedInterrupt => "import time\nwhile True:\n    try:\n        \
                time.sleep(1)\n    except KeyboardInterrupt:\n        pass"
                .to_owned(),
            Self::IgnoredInterrupt => {
                "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
                    .to_owned()
            }
            Self::ForkBomb => "import os, time\nchildren = []\ntry:\n    while len(children) < 2000:\n        \
                child = os.fork()\n        if child == 0:\n            time.sleep(600)\n            os._exit(0)\n        \
                children.append(child)\nexcept OSError:\n    pass\nfor child in children:\n    os.kill(child, 9)\n    \
                os.waitpid(child, 0)"
                .to_owned(),
            Self::OutputFlood => format!("for i in range(50_000): print('{token}', i)"),
            Self::DiskFull => "import os\ntry:\n    with open('filler', 'wb') as file:\n        \
                for _ in range(64): file.write(bytes(1 << 20)); file.flush()\nexcept OSError:\n    pass\nos.remove('filler')"
                .to_owned(),
            Self::Deadline => "import time\ntime.sleep(60)".to_owned(),
            Self::Interrupted => format!("import time\nprint('{token}')\ntime.sleep(60)"),
            Self::Exception => "1 / 0".to_owned(),
            Self::ClientCut | Self::ServerKilled | Self::AgentKilled | Self::KernelKilled => slow(token),
            Self::None | Self::SlowReader | Self::DuplicatedSubmit => format!("print('{token}')"),
        }
    }

    /// What the cell prints if it ends well; none where that is not known.
    pub fn prints(self, token: &str) -> Option<String> {
        let lines = |count| (0..count).map(|i| format!("{token} {i}\n")).collect();
        match self {
            Self::OutputFlood => Some(lines(50_000)),
            Self::ClientCut | Self::ServerKilled | Self::AgentKilled | Self::KernelKilled => {
                Some(lines(SLOW_LINES))
            }
            Self::None | Self::SlowReader | Self::DuplicatedSubmit => Some(format!("{token}\n")),
            _ => None,
        }
    }
}

const SLOW_LINES: usize = 30;

fn slow(token: &str) -> String {
    format!(
        "import time\nfor i in range({SLOW_LINES}):\n    print('{token}', i)\n    time.sleep(0.01)"
    )
}
