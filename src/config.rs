//! What was typed and what stands in the environment become one checked [`Config`]; secrets in it cannot be printed.
//!
//! Each room says what it needs in a `Config` of its own; this one holds what they are filled from. No room reads the environment.

pub mod flags;
pub mod units;

use std::env;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::limits::{Limits, MIB, Timeouts};
use crate::model::settings::Settings;
use crate::sandbox::docker::Link;
use flags::{BackendName, CeilingFlags, DataFlags, Durability, Flags, KernelFlags, LinkName};
use units::{Switchable, show_duration, show_size};

/// Less would end kernels before a server that was killed can be there again.
const ORPHAN_LIMIT_MIN: Duration = Duration::from_secs(5);

/// How many kernels are kept warm, where nothing is said.
const POOL_MIN: usize = 4;
const POOL_MAX: usize = 32;

/// What `serve` works with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The directory with everything that is kept.
    pub data_dir: PathBuf,
    /// The token that was given; one is made if none.
    pub token: Option<Token>,
    /// Web origins that may connect besides our own.
    pub allow_origin: Vec<String>,
    /// Names that this server may be called by besides its address; none for any name.
    pub allow_host: Option<Vec<String>>,
    /// How long a cell of a kernel that a Jupyter client has made may run, and how long with all extensions, in milliseconds; none for what it is
    /// with sessions.
    pub jupyter_cell_ms: Option<(u64, u64)>,
    /// The directory of shared notebooks.
    pub notebooks: PathBuf,
    /// Where kernels come from.
    pub kernels: Kernels,
    /// How many kernels are kept warm, at least and at most.
    pub pool: (usize, usize),
    /// How many sessions may be open at once.
    pub max_sessions: usize,
    /// How many cells of a session may wait.
    pub max_queued: usize,
    /// What a session gets when it asks for nothing.
    pub defaults: Settings,
    /// The most that it may ask for.
    pub ceilings: Settings,
    /// What an appended event survives.
    pub durability: Durability,
    /// How long a session that has ended is kept.
    pub retain: Duration,
    /// How many bytes of a session's log are kept.
    pub retain_log: u64,
    /// How many bytes of all logs together are kept.
    pub retain_logs: u64,
    /// How many connections are held at once.
    pub max_connections: usize,
    /// How long a stop waits for running cells.
    pub grace: Duration,
    /// Whether SIGTERM leaves sessions to the next server.
    pub keep_sessions: bool,
    /// How long kernels live on without a server.
    pub orphan_limit: Duration,
}

/// Where kernels come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Sandboxes out of Linux namespaces.
    Native {
        /// The Python environment.
        python_env: PathBuf,
        /// The directory that holds `pykernel`.
        kernel_lib: PathBuf,
    },
    /// Containers.
    Docker {
        /// Where the engine is, if not at the usual place.
        host: Option<String>,
        /// The image.
        image: String,
        /// The engine's runtime, if not its default.
        runtime: Option<String>,
        /// How agents are reached, if that was said.
        link: Option<Link>,
    },
}

/// What every client has to show. Neither `Debug` nor a log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The shortest that is accepted, in characters.
    const MIN: usize = 8;
    /// The longest, in characters.
    const MAX: usize = 256;

    /// Takes a token that can stand in a header, a URL and the name of a WebSocket subprotocol as it is.
    ///
    /// # Errors
    /// It is too short, too long, or has a character that cannot.
    pub fn new(text: &str) -> Result<Self, ConfigError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
        if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
            return Err(ConfigError::TokenCharacter(bad));
        }
        if !(Self::MIN..=Self::MAX).contains(&text.len()) {
            return Err(ConfigError::TokenLength(text.len()));
        }
        Ok(Self(text.to_owned()))
    }

    /// A new one of 122 random bits.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string())
    }

    /// The token itself, for those who check or print it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What cannot be as it was typed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Everybody on the network could run code.
    #[error("listening on `{0}` would let the network in, and no token was given")]
    OpenToTheNetwork(SocketAddr),
    /// A token has a character that cannot stand in a URL.
    #[error("a token has letters, digits, `-`, `.`, `_` and `~` only, and this one has {0:?}")]
    TokenCharacter(char),
    /// A token is too short to keep anybody out, or too long.
    #[error("a token has 8 to 256 characters, and this one has {0}")]
    TokenLength(usize),
    /// Neither flag nor environment says where data is to be.
    #[error("there is no home directory to keep data in")]
    NoHome,
    /// There is no Python environment where one is looked for.
    #[error("no Python environment was found in {}", .0.join(" or "))]
    NoPythonEnv(Vec<String>),
    /// There is no `pykernel` where it is looked for.
    #[error("the Python side of a kernel, `pykernel`, was not found in {}", .0.join(" or "))]
    NoKernelLib(Vec<String>),
    /// A value is too small or too large.
    #[error("`{flag}` is {value}, but {rule}")]
    Bounds {
        /// Which.
        flag: &'static str,
        /// What was typed.
        value: String,
        /// What is possible.
        rule: String,
    },
}

impl ConfigError {
    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::OpenToTheNetwork(_) => Some(
                "give a secret of your own with `--token` or `EVERCELL_TOKEN`, or listen on 127.0.0.1; put a proxy with TLS in front of any other address",
            ),
            Self::TokenLength(_) | Self::TokenCharacter(_) => {
                Some("`openssl rand -hex 24` makes a good one")
            }
            Self::NoHome => Some("name a directory with `--data-dir`"),
            Self::NoPythonEnv(_) => {
                Some("`make env` makes one in ./.venv; name another one with `--python-env`")
            }
            Self::NoKernelLib(_) => {
                Some("name the directory `kernel-image` of the repository with `--kernel-lib`")
            }
            Self::Bounds { .. } => None,
        }
    }
}

/// What is read from outside of the command line; a test gives its own.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// `XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// The directory of this program.
    pub program_dir: Option<PathBuf>,
    /// The working directory.
    pub working_dir: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        // An empty or relative one is to be ignored, says the XDG specification.
        let dir = |name| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        Self {
            data_home: dir("XDG_DATA_HOME"),
            home: dir("HOME"),
            docker_host: env::var_os("DOCKER_HOST")
                .and_then(|host| host.into_string().ok())
                .filter(|host| !host.is_empty()),
            program_dir: env::current_exe()
                .ok()
                .and_then(|program| program.parent().map(Path::to_owned)),
            working_dir: env::current_dir().unwrap_or_default(),
        }
    }

    /// The first of `./local` and `share` beside the program's directory that `fits`; else both, for an error.
    fn look_for(
        &self,
        local: &str,
        share: &str,
        fits: impl Fn(&Path) -> bool,
    ) -> Result<PathBuf, Vec<String>> {
        let mut candidates = vec![self.working_dir.join(local)];
        if let Some(prefix) = self.program_dir.as_deref().and_then(Path::parent) {
            candidates.push(prefix.join(share));
        }
        candidates
            .iter()
            .find(|path| fits(path))
            .cloned()
            .ok_or_else(|| {
                candidates
                    .iter()
                    .map(|path| format!("`{}`", path.display()))
                    .collect()
            })
    }
}

/// Where data is kept.
///
/// # Errors
/// Nothing says where.
pub fn data_dir(flags: &DataFlags, around: &Surroundings) -> Result<PathBuf, ConfigError> {
    if let Some(dir) = &flags.data_dir {
        // Without the `.` that was typed: it is shown, and written down.
        return Ok(around.working_dir.join(dir).components().collect());
    }
    if let Some(home) = &around.data_home {
        return Ok(home.join("evercell"));
    }
    let home = around.home.as_ref().ok_or(ConfigError::NoHome)?;
    Ok(home.join(".local/share/evercell"))
}

impl Kernels {
    /// The same, without looking whether anything is there: for those who tell what is not.
    pub fn unchecked(flags: &KernelFlags, around: &Surroundings) -> Self {
        let or = |flag: &Option<PathBuf>, local: &str| {
            let path = flag.as_deref().unwrap_or(Path::new(local));
            around.working_dir.join(path)
        };
        Self::new(flags, around).unwrap_or_else(|_| Self::Native {
            python_env: or(&flags.python_env, ".venv"),
            kernel_lib: or(&flags.kernel_lib, "kernel-image"),
        })
    }

    /// Where kernels come from, as typed or as found.
    ///
    /// # Errors
    /// Something is not where it was said to be, or where it is looked for.
    pub fn new(flags: &KernelFlags, around: &Surroundings) -> Result<Self, ConfigError> {
        if flags.backend == BackendName::Docker {
            let docker = &flags.docker;
            return Ok(Self::Docker {
                host: docker.docker_host.clone().or(around.docker_host.clone()),
                image: docker.docker_image.clone(),
                runtime: docker.docker_runtime.clone(),
                link: docker.docker_link.map(|link| match link {
                    LinkName::Socket => Link::Socket,
                    LinkName::Exec => Link::Exec,
                }),
            });
        }
        let is_env = |path: &Path| path.join("bin/python").exists();
        let is_lib = |path: &Path| path.join("pykernel/__init__.py").exists();
        let given = |path: &PathBuf, fits: &dyn Fn(&Path) -> bool| {
            let path = around.working_dir.join(path);
            if fits(&path) {
                Ok(path)
            } else {
                Err(vec![format!("`{}`", path.display())])
            }
        };
        let python_env = match &flags.python_env {
            Some(path) => given(path, &is_env),
            None => around.look_for(".venv", "share/evercell/python-env", is_env),
        };
        let kernel_lib = match &flags.kernel_lib {
            Some(path) => given(path, &is_lib),
            None => around.look_for("kernel-image", "share/evercell/kernel", is_lib),
        };
        Ok(Self::Native {
            python_env: python_env.map_err(ConfigError::NoPythonEnv)?,
            kernel_lib: kernel_lib.map_err(ConfigError::NoKernelLib)?,
        })
    }
}

impl Config {
    /// Checks what was typed and fills in what was not.
    ///
    /// # Errors
    /// Names the first thing that cannot be, and how it could.
    pub fn new(flags: &Flags, around: &Surroundings) -> Result<Self, ConfigError> {
        let token = flags.token.as_deref().map(Token::new).transpose()?;
        if token.is_none() && !flags.listen.ip().is_loopback() {
            return Err(ConfigError::OpenToTheNetwork(flags.listen));
        }
        let defaults = defaults(flags)?;
        let ceilings = ceilings(&flags.ceilings, &defaults);
        at_least("--max-sessions", flags.max_sessions, 1)?;
        at_least("--max-queued", flags.max_queued, 1)?;
        at_least("--max-connections", flags.max_connections, 1)?;
        if flags.orphan_limit < ORPHAN_LIMIT_MIN {
            return bounds(
                "--orphan-limit",
                show_duration(flags.orphan_limit),
                "a server needs some seconds to start again; give at least 5s",
            );
        }
        let data_dir = data_dir(&flags.data, around)?;
        let notebooks = match &flags.notebooks {
            Some(given) => around.working_dir.join(given),
            None => data_dir.join("notebooks"),
        };
        let longest = ceilings.timeouts.ceiling_ms;
        let jupyter_cell_ms = match flags.jupyter_cell_timeout {
            None => None,
            Some(Switchable::Off) => Some((longest, longest)),
            Some(Switchable::After(timeout)) => {
                let cell_ms = millis(timeout);
                if cell_ms == 0 || cell_ms > longest {
                    let rule = format!(
                        "it is more than nothing and at most `--max-ceiling`, which is {}",
                        show_duration(Duration::from_millis(longest))
                    );
                    return bounds("--jupyter-cell-timeout", show_duration(timeout), rule);
                }
                Some((cell_ms, cell_ms.max(defaults.timeouts.ceiling_ms)))
            }
        };
        Ok(Self {
            listen: flags.listen,
            jupyter_cell_ms,
            notebooks,
            data_dir,
            token,
            allow_origin: flags.allow_origin.clone(),
            // On loopback the names are known, and any other one is a page's whose name was rebound to this machine.
            allow_host: (flags.listen.ip().is_loopback() || !flags.allow_host.is_empty())
                .then(|| flags.allow_host.clone()),
            kernels: Kernels::new(&flags.kernels, around)?,
            pool: pool(flags)?,
            max_sessions: flags.max_sessions,
            max_queued: flags.max_queued,
            defaults,
            ceilings,
            durability: flags.durability,
            retain: flags.retain,
            retain_log: flags.retain_log,
            retain_logs: flags.retain_logs,
            max_connections: flags.max_connections,
            grace: flags.grace,
            keep_sessions: flags.keep_sessions,
            orphan_limit: flags.orphan_limit,
        })
    }
}

fn defaults(flags: &Flags) -> Result<Settings, ConfigError> {
    let (limits, timeouts) = (&flags.limits, &flags.timeouts);
    if limits.memory < 64 * MIB {
        return bounds(
            "--memory",
            show_size(limits.memory),
            "a kernel needs at least 64M",
        );
    }
    if limits.workspace < MIB || limits.disk < MIB {
        let (flag, size) = if limits.workspace < MIB {
            ("--workspace", limits.workspace)
        } else {
            ("--disk", limits.disk)
        };
        return bounds(flag, show_size(size), "a file system needs at least 1M");
    }
    at_least("--processes", limits.processes as usize, 4)?;
    if limits.cell_output == 0 {
        return bounds("--cell-output", "0", "it has to be more");
    }
    for (flag, duration) in [
        (
            "--cell-cpu",
            limits.cell_cpu.unwrap_or(Duration::from_secs(1)),
        ),
        ("--cell-timeout", timeouts.cell_timeout),
        ("--input-timeout", timeouts.input_timeout),
        ("--idle-timeout", timeouts.idle_timeout),
    ] {
        if duration.is_zero() {
            return bounds(flag, "0s", "it has to be longer");
        }
    }
    if timeouts.cell_timeout > timeouts.ceiling {
        return bounds(
            "--cell-timeout",
            show_duration(timeouts.cell_timeout),
            format!(
                "it is never longer than `--ceiling`, which is {}",
                show_duration(timeouts.ceiling)
            ),
        );
    }
    if !Timeouts::allows_on_progress(millis(timeouts.extend_on_progress)) {
        return bounds(
            "--extend-on-progress",
            show_duration(timeouts.extend_on_progress),
            "it is at least 1s, or 0s to extend no cell by itself",
        );
    }
    Ok(Settings {
        limits: Limits {
            memory_bytes: limits.memory,
            cpu_millis: limits.cpus,
            processes: limits.processes,
            disk_bytes: limits.disk,
            workspace_bytes: limits.workspace,
            cell_cpu_ms: limits.cell_cpu.map(millis),
            cell_output_bytes: limits.cell_output,
        },
        timeouts: Timeouts {
            cell_ms: millis(timeouts.cell_timeout),
            ceiling_ms: millis(timeouts.ceiling),
            extend_on_progress_ms: millis(timeouts.extend_on_progress),
            warning_ms: millis(timeouts.warning),
            input_ms: millis(timeouts.input_timeout),
            idle_ms: millis(timeouts.idle_timeout),
        },
        ..Settings::default()
    })
}

fn ceilings(most: &CeilingFlags, defaults: &Settings) -> Settings {
    let (limits, timeouts) = (&defaults.limits, &defaults.timeouts);
    let ceiling_ms = millis(most.max_ceiling).max(timeouts.ceiling_ms);
    Settings {
        limits: Limits {
            memory_bytes: most.max_memory.max(limits.memory_bytes),
            cpu_millis: most.max_cpus.max(limits.cpu_millis),
            processes: most.max_processes.max(limits.processes),
            disk_bytes: most.max_disk.max(limits.disk_bytes),
            workspace_bytes: most.max_workspace.max(limits.workspace_bytes),
            cell_cpu_ms: Some(millis(most.max_cell_cpu)).max(limits.cell_cpu_ms),
            cell_output_bytes: most.max_cell_output.max(limits.cell_output_bytes),
        },
        timeouts: Timeouts {
            cell_ms: ceiling_ms,
            ceiling_ms,
            extend_on_progress_ms: ceiling_ms,
            warning_ms: ceiling_ms,
            input_ms: millis(most.max_input_timeout).max(timeouts.input_ms),
            idle_ms: millis(most.max_idle_timeout).max(timeouts.idle_ms),
        },
        ..Settings::default()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn at_least(flag: &'static str, value: usize, least: usize) -> Result<(), ConfigError> {
    if value < least {
        return bounds(flag, value, format!("it has to be at least {least}"));
    }
    Ok(())
}

/// How many kernels are kept warm, at least and at most: never more than there may be sessions.
fn pool(flags: &Flags) -> Result<(usize, usize), ConfigError> {
    for (flag, number) in [("--pool", flags.pool), ("--pool-max", flags.pool_max)] {
        if let Some(number @ 1025..) = number {
            return bounds(flag, number, "at most 1024 are kept warm");
        }
    }
    let most = flags
        .pool_max
        .unwrap_or(POOL_MAX.max(flags.pool.unwrap_or_default()));
    let least = flags.pool.unwrap_or(POOL_MIN.min(most));
    if least > most {
        let rule = format!("it is at most `--pool-max`, which is {most}");
        return bounds("--pool", least, rule);
    }
    Ok((least.min(flags.max_sessions), most.min(flags.max_sessions)))
}

fn bounds<T>(
    flag: &'static str,
    value: impl fmt::Display,
    rule: impl Into<String>,
) -> Result<T, ConfigError> {
    Err(ConfigError::Bounds {
        flag,
        value: value.to_string(),
        rule: rule.into(),
    })
}

#[cfg(test)]
mod tests;
