//! What can be typed after `evercell serve`. What it means is decided in `config.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::units::{
    Switchable, parse_cpus, parse_duration, parse_origin, parse_size, parse_switchable,
};

/// Where the Python kernels come from. `serve` and `doctor` have it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kernels")]
pub struct KernelFlags {
    /// The Python environment of the kernels, as `kernel-image/setup-env.sh` makes it.
    ///
    /// Left out: `./.venv`, or `share/evercell/python-env` beside the directory of this program.
    #[arg(long, value_name = "DIR", env = "EVERCELL_PYTHON_ENV")]
    pub python_env: Option<PathBuf>,

    /// The directory that holds `pykernel`, the Python side of a kernel.
    ///
    /// Left out: `./kernel-image`, or `share/evercell/kernel` beside the directory of this program.
    #[arg(long, value_name = "DIR", env = "EVERCELL_KERNEL_LIB")]
    pub kernel_lib: Option<PathBuf>,

    /// How sandboxes are made: `native` uses Linux namespaces and needs no daemon, `docker` makes containers and needs an engine and an image.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "native",
        env = "EVERCELL_BACKEND"
    )]
    pub backend: BackendName,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub docker: DockerFlags,
}

/// What `--backend docker` uses. `serve` and `doctor` have it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Docker")]
pub struct DockerFlags {
    /// The image of the kernels, as `make image` builds it.
    #[arg(
        long,
        value_name = "IMAGE",
        default_value = "evercell-kernel",
        env = "EVERCELL_DOCKER_IMAGE"
    )]
    pub docker_image: String,

    /// The engine's runtime, such as `runsc` for gVisor. Left out: the engine's default.
    #[arg(long, value_name = "NAME", env = "EVERCELL_DOCKER_RUNTIME")]
    pub docker_runtime: Option<String>,

    /// Where the engine is: `unix://…` or `tcp://…`. Left out: `$DOCKER_HOST`, or `unix:///var/run/docker.sock`.
    ///
    /// It has to see the data directory under the same path as this server does.
    #[arg(long, value_name = "URL", env = "EVERCELL_DOCKER_HOST")]
    pub docker_host: Option<String>,

    /// How the server reaches a container: by a `socket` on a directory that both see, or by a program that the engine starts in it (`exec`).
    ///
    /// Left out: found out by trying.
    #[arg(long, value_name = "WAY", env = "EVERCELL_DOCKER_LINK")]
    pub docker_link: Option<LinkName>,
}

/// The directory with everything that is kept. `serve`, and clients on the same machine, have it.
#[derive(Clone, Debug, Args)]
pub struct DataFlags {
    /// Everything that is kept lies here, and nothing is written elsewhere.
    ///
    /// Left out: `$XDG_DATA_HOME/evercell`, or `~/.local/share/evercell`.
    #[arg(long, value_name = "DIR", env = "EVERCELL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What can be typed after `evercell serve`.
#[derive(Clone, Debug, Args)]
pub struct Flags {
    /// Where to listen; port 0 takes a free one, which the ready line names.
    ///
    /// Any other address than one of this machine's loopback is refused without a token of your own.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8888",
        env = "EVERCELL_LISTEN"
    )]
    pub listen: SocketAddr,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub data: DataFlags,

    /// The token that every client has to show.
    ///
    /// Left out: one is made at the first start, kept in the data directory, and printed with the ready line.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "EVERCELL_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,

    /// A web page's origin that may connect besides our own; may be given more than once.
    #[arg(long, value_name = "ORIGIN", value_parser = parse_origin, env = "EVERCELL_ALLOW_ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<String>,

    /// A name that this server is reached by besides its address, as a proxy in front has it; may be given more than once.
    #[arg(
        long,
        value_name = "HOST",
        env = "EVERCELL_ALLOW_HOST",
        value_delimiter = ','
    )]
    pub allow_host: Vec<String>,

    /// Wall-clock time of a cell of a kernel that a Jupyter client has made; `off` for as long as `--max-ceiling`. Left out: as `--cell-timeout`.
    #[arg(long, value_name = "DURATION", value_parser = parse_switchable, help_heading = "Jupyter", env = "EVERCELL_JUPYTER_CELL_TIMEOUT")]
    pub jupyter_cell_timeout: Option<Switchable>,

    /// The directory of shared notebooks that `/api/contents` serves; `notebooks` in the data directory if left out.
    #[arg(
        long,
        value_name = "DIR",
        help_heading = "Jupyter",
        env = "EVERCELL_NOTEBOOKS"
    )]
    pub notebooks: Option<PathBuf>,

    /// Print the ready line as JSON: `{"url", "token", "listen", "pid", "version"}`.
    #[arg(long)]
    pub ready_json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub kernels: KernelFlags,

    /// How many kernels are kept warm at least [default: 4, or `--pool-max` if that is less].
    #[arg(
        long,
        value_name = "N",
        help_heading = "Kernels",
        env = "EVERCELL_POOL"
    )]
    pub pool: Option<usize>,

    /// How many kernels are kept warm at most, when many sessions are opened [default: 32, or `--pool` if that is more].
    #[arg(
        long,
        value_name = "N",
        help_heading = "Kernels",
        env = "EVERCELL_POOL_MAX"
    )]
    pub pool_max: Option<usize>,

    /// How many sessions may be open at once.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        help_heading = "Sessions",
        env = "EVERCELL_MAX_SESSIONS"
    )]
    pub max_sessions: usize,

    /// How many cells of a session may wait behind the running one.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        help_heading = "Sessions",
        env = "EVERCELL_MAX_QUEUED"
    )]
    pub max_queued: usize,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub limits: LimitFlags,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub timeouts: TimeoutFlags,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the type says it")]
    pub ceilings: CeilingFlags,

    /// What an event in a log survives: the death of the `process`, or also the loss of `power`, which is slower.
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "process",
        help_heading = "Storage",
        env = "EVERCELL_DURABILITY"
    )]
    pub durability: Durability,

    /// How long a session that has ended is kept, with its log and files.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "30d",
        value_parser = parse_duration,
        help_heading = "Storage",
        env = "EVERCELL_RETAIN"
    )]
    pub retain: Duration,

    /// How much of a session's log is kept, about; what is older goes.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1G",
        value_parser = parse_size,
        help_heading = "Storage",
        env = "EVERCELL_RETAIN_LOG"
    )]
    pub retain_log: u64,

    /// How much of all logs together is kept, about; the largest are cut first.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "20G",
        value_parser = parse_size,
        help_heading = "Storage",
        env = "EVERCELL_RETAIN_LOGS"
    )]
    pub retain_logs: u64,

    /// How many connections are held at once; more wait until one is closed.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1024,
        help_heading = "Server",
        env = "EVERCELL_MAX_CONNECTIONS"
    )]
    pub max_connections: usize,

    /// How long a stop waits for running cells before it interrupts them; a second signal ends the wait.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration, help_heading = "Server", env = "EVERCELL_GRACE")]
    pub grace: Duration,

    /// Leave kernels and running cells to the next start when SIGTERM comes, so that a restart loses nothing. SIGINT ends them all the same.
    #[arg(long, help_heading = "Server", env = "EVERCELL_KEEP_SESSIONS")]
    pub keep_sessions: bool,

    /// How long kernels live on without a server: a server that starts again within it takes them up, whatever ended the last one.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration, help_heading = "Server", env = "EVERCELL_ORPHAN_LIMIT")]
    pub orphan_limit: Duration,

    /// What is logged to stderr: a level, or a filter such as `info,evercell::kernel=debug`.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Server",
        env = "EVERCELL_LOG"
    )]
    pub log: String,
}

/// What a session may use unless it asks for something else.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits of a session")]
pub struct LimitFlags {
    /// Memory of all its processes, with the files in /tmp.
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_size, env = "EVERCELL_MEMORY")]
    pub memory: u64,

    /// Processors; `1.5` is one and a half.
    #[arg(long, value_name = "N", default_value = "2", value_parser = parse_cpus, env = "EVERCELL_CPUS")]
    pub cpus: u32,

    /// Processes and threads.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        env = "EVERCELL_PROCESSES"
    )]
    pub processes: u32,

    /// Disk beyond the workspace: /tmp.
    #[arg(long, value_name = "SIZE", default_value = "100M", value_parser = parse_size, env = "EVERCELL_DISK")]
    pub disk: u64,

    /// Disk of the workspace.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size, env = "EVERCELL_WORKSPACE")]
    pub workspace: u64,

    /// Processor time of a cell, its child processes included. Left out: only its deadline bounds it.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, env = "EVERCELL_CELL_CPU")]
    pub cell_cpu: Option<Duration>,

    /// What a cell may write and show; beyond it the cell is interrupted.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size, env = "EVERCELL_CELL_OUTPUT")]
    pub cell_output: u64,
}

/// How long things may take unless a session asks for something else.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Timeouts of a session")]
pub struct TimeoutFlags {
    /// Wall-clock time of a cell, until it is extended.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration, env = "EVERCELL_CELL_TIMEOUT")]
    pub cell_timeout: Duration,

    /// Wall-clock time of a cell with all extensions.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration, env = "EVERCELL_CEILING")]
    pub ceiling: Duration,

    /// By how much a cell that prints or shows something is extended when its time is nearly up, as far as the ceiling allows; 0s for not at all.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration, env = "EVERCELL_EXTEND_ON_PROGRESS")]
    pub extend_on_progress: Duration,

    /// How long before a deadline it warns; for a short one a third of it.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration, env = "EVERCELL_WARNING")]
    pub warning: Duration,

    /// How long `input()` waits for an answer; the cell's own deadline stands still meanwhile.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration, env = "EVERCELL_INPUT_TIMEOUT")]
    pub input_timeout: Duration,

    /// How long a session lives after its last cell has ended. Its log and files outlive it.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration, env = "EVERCELL_IDLE_TIMEOUT")]
    pub idle_timeout: Duration,
}

/// The most that a session may ask for. What is less than the default of its kind is raised to it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The most a session may ask for")]
pub struct CeilingFlags {
    /// Memory.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_size, env = "EVERCELL_MAX_MEMORY")]
    pub max_memory: u64,

    /// Processors.
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_cpus, env = "EVERCELL_MAX_CPUS")]
    pub max_cpus: u32,

    /// Processes and threads.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1024,
        env = "EVERCELL_MAX_PROCESSES"
    )]
    pub max_processes: u32,

    /// Disk beyond the workspace.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size, env = "EVERCELL_MAX_DISK")]
    pub max_disk: u64,

    /// Disk of the workspace.
    #[arg(long, value_name = "SIZE", default_value = "20G", value_parser = parse_size, env = "EVERCELL_MAX_WORKSPACE")]
    pub max_workspace: u64,

    /// Processor time of a cell.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration, env = "EVERCELL_MAX_CELL_CPU")]
    pub max_cell_cpu: Duration,

    /// What a cell may write and show.
    #[arg(long, value_name = "SIZE", default_value = "16G", value_parser = parse_size, env = "EVERCELL_MAX_CELL_OUTPUT")]
    pub max_cell_output: u64,

    /// Wall-clock time of a cell with all extensions.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration, env = "EVERCELL_MAX_CEILING")]
    pub max_ceiling: Duration,

    /// The wait of `input()`.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration, env = "EVERCELL_MAX_INPUT_TIMEOUT")]
    pub max_input_timeout: Duration,

    /// The idle timeout.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_duration, env = "EVERCELL_MAX_IDLE_TIMEOUT")]
    pub max_idle_timeout: Duration,
}

/// A backend by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    /// Linux namespaces, no daemon.
    Native,
    /// Containers of a Docker engine.
    Docker,
}

/// A way into a container by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LinkName {
    /// A Unix socket on a directory that both see.
    Socket,
    /// A program that the engine starts.
    Exec,
}

/// What an appended event survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// The end of the server's process, however it comes.
    Process,
    /// Also the loss of power.
    Power,
}
