//! What the engine can do: the data of `evercell doctor`, and what the backend refuses to start without.

use bollard::models::SystemInfo;

use super::Config;
use super::engine::{Engine, EngineError};
use crate::protocol::GENERATION;
use crate::sandbox::SandboxError;
use crate::sandbox::check::{Check, Level};

/// Looks at the engine, its limits, its runtime and the image.
pub async fn checks(config: &Config) -> Vec<Check> {
    look(config).await.0
}

/// The engine, if it has what is needed.
pub(super) async fn engine(config: &Config) -> Result<Engine, SandboxError> {
    let (checks, engine) = look(config).await;
    let lack = checks.into_iter().find(|check| check.level == Level::Fatal);
    match (lack, engine) {
        (None, Some(engine)) => Ok(engine),
        (lack, _) => {
            let lack = lack.expect("without an engine there is a lack");
            Err(SandboxError::Engine {
                missing: format!("{}: {}", lack.name, lack.found),
                hint: lack.hint.unwrap_or_default(),
            })
        }
    }
}

async fn look(config: &Config) -> (Vec<Check>, Option<Engine>) {
    let mut checks = Vec::new();
    let found = async {
        let engine = Engine::at(config.host.as_deref())?.agree().await?;
        let (version, info) = (engine.version().await?, engine.info().await?);
        Ok::<_, EngineError>((engine, version, info))
    };
    let (engine, version, info) = match found.await {
        Ok(found) => found,
        Err(error) => {
            checks.push(Check::lacking(
                Level::Fatal,
                "docker engine",
                error.to_string(),
                "no container can be made",
                "start it (`systemctl start docker`), or name another one with `--docker-host`; the server's user has to be allowed to use it",
            ));
            return (checks, None);
        }
    };
    checks.push(Check::ok(
        "docker engine",
        format!(
            "{} at `{}`, API {}",
            version.version.unwrap_or_default(),
            engine.host,
            version.api_version.unwrap_or_default()
        ),
    ));
    checks.extend(limits(&info));
    checks.push(users(&info));
    checks.push(runtime(&info, config));
    checks.push(live_restore(&info));
    checks.push(image(&engine, config).await);
    (checks, Some(engine))
}

fn limits(info: &SystemInfo) -> Vec<Check> {
    let has = |what: Option<bool>| what == Some(true);
    let bounded = |name, has: bool, level, follows| {
        if has {
            Check::ok(name, "the engine bounds it")
        } else {
            Check::lacking(
                level,
                name,
                "the engine cannot bound it",
                follows,
                "give the engine the control groups for it, see the warnings of `docker info`",
            )
        }
    };
    let filtered = info
        .security_options
        .iter()
        .flatten()
        .any(|option| option.starts_with("name=seccomp"));
    vec![
        bounded(
            "memory limit",
            has(info.memory_limit),
            Level::Fatal,
            "a session can take all memory of the machine",
        ),
        bounded(
            "swap limit",
            has(info.swap_limit),
            Level::Degraded,
            "what a session may not have in memory it can have as swap",
        ),
        bounded(
            "process limit",
            has(info.pids_limit),
            Level::Fatal,
            "a session can make processes until the machine stands still",
        ),
        bounded(
            "processor limit",
            has(info.cpu_cfs_quota),
            Level::Degraded,
            "a busy session can take all processors from the others",
        ),
        bounded(
            "system call filter",
            filtered,
            Level::Fatal,
            "all of Linux can be reached from a session",
        ),
    ]
}

fn users(info: &SystemInfo) -> Check {
    const NAME: &str = "users of containers";
    let has = |name: &str| {
        info.security_options
            .iter()
            .flatten()
            .any(|option| option == name)
    };
    let (found, hint) = if has("name=rootless") {
        (
            "the engine is rootless",
            "use an engine that root runs, or `--backend native`, which needs no root",
        )
    } else if has("name=userns") {
        (
            "the engine maps them to others (`userns-remap`)",
            "use an engine without `userns-remap`, or `--backend native`",
        )
    } else {
        return Check::ok(NAME, "are those of this machine");
    };
    Check::lacking(
        Level::Fatal,
        NAME,
        found,
        "the user of a container would not be the owner of its workspace",
        hint,
    )
}

fn runtime(info: &SystemInfo, config: &Config) -> Check {
    const NAME: &str = "runtime";
    let known: Vec<&str> = info
        .runtimes
        .iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    match config.runtime.as_deref() {
        None => Check::ok(NAME, info.default_runtime.clone().unwrap_or_default()),
        Some(wanted) if known.contains(&wanted) => Check::ok(NAME, wanted),
        Some(wanted) => Check::lacking(
            Level::Fatal,
            NAME,
            format!(
                "the engine has no runtime `{wanted}`, but {}",
                known.join(", ")
            ),
            "no container can be made",
            "name it in the engine's configuration (`runtimes` in /etc/docker/daemon.json), or another one with `--docker-runtime`",
        ),
    }
}

fn live_restore(info: &SystemInfo) -> Check {
    const NAME: &str = "restart of the engine";
    if info.live_restore_enabled == Some(true) {
        return Check::ok(NAME, "containers go on");
    }
    Check::lacking(
        Level::Degraded,
        NAME,
        "containers end with the engine",
        "all sessions lose their variables when the engine is started again",
        "set `\"live-restore\": true` in /etc/docker/daemon.json",
    )
}

async fn image(engine: &Engine, config: &Config) -> Check {
    const NAME: &str = "docker image";
    let image = &config.image;
    let fatal = |found: String| {
        Check::lacking(
            Level::Fatal,
            NAME,
            found,
            "no kernel can be started",
            "build it with `make image`, or name another one with `--docker-image`",
        )
    };
    let found = match engine.image(image).await {
        Ok(found) => found,
        Err(EngineError::NotFound(_)) => return fatal(format!("`{image}` is not there")),
        Err(error) => return fatal(error.to_string()),
    };
    let labels = found
        .config
        .and_then(|config| config.labels)
        .unwrap_or_default();
    let label = |name: &str| labels.get(name).map(String::as_str);
    let own = env!("CARGO_PKG_VERSION");
    match (label("evercell.protocol"), label("evercell.version")) {
        (Some(protocol), Some(version)) if protocol == GENERATION.to_string() => {
            if version == own {
                return Check::ok(NAME, format!("`{image}`, version {version}"));
            }
            Check::lacking(
                Level::Degraded,
                NAME,
                format!("`{image}` is of version {version}, and this is {own}"),
                "what was mended in kernels since may be missing",
                "build it anew with `make image`",
            )
        }
        (Some(protocol), _) => fatal(format!(
            "`{image}` speaks generation {protocol} of the protocol, and this server {GENERATION}"
        )),
        (None, _) => fatal(format!(
            "`{image}` is no image of ours: it has no label `evercell.protocol`"
        )),
    }
}
