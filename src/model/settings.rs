//! What a caller may wish for when opening a session, and what it gets.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::{Limits, MIB, Timeouts};

/// A caller's wishes; what is left out is the server's default.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct SettingsRequest {
    /// Memory of the whole sandbox, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processors, in thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Disk beyond the workspace, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Disk for the workspace, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_bytes: Option<u64>,
    /// Time on the processors of a cell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell_cpu_ms: Option<u64>,
    /// What a cell may write and show, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell_output_bytes: Option<u64>,
    /// Wall-clock time of a cell, until it is extended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell_ms: Option<u64>,
    /// Wall-clock time of a cell, with all extensions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling_ms: Option<u64>,
    /// By how much a cell that shows progress is extended when its time is nearly up; 0 for not at all, else at least 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend_on_progress_ms: Option<u64>,
    /// How long before the deadline it warns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning_ms: Option<u64>,
    /// How long `input()` waits for an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_ms: Option<u64>,
    /// How long the session lives after its last cell has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// Environment variables of the kernel.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Facts that clients keep about the session, such as a title. Nothing here depends on them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What a session was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// What its sandbox may use.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Environment variables of the kernel.
    pub env: BTreeMap<String, String>,
    /// Facts that clients keep about the session.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Why a wish is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A number is outside of what this server allows.
    #[error("`{name}` is {asked}, but this server allows {least} to {most}")]
    OutOfRange {
        /// The field.
        name: &'static str,
        /// What was asked.
        asked: u64,
        /// The least that is allowed.
        least: u64,
        /// The most that is allowed.
        most: u64,
    },
    /// An environment variable cannot be.
    #[error("the environment variable {name:?} is not possible: {why}")]
    Env {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Labels are longer than is kept.
    #[error("the labels have {bytes} bytes, but at most {most} are kept")]
    Labels {
        /// Names and values together.
        bytes: usize,
        /// The most that is kept.
        most: usize,
    },
}

/// The most of environment variables, names and values together, in bytes.
const ENV_MAX: usize = 64 * 1024;

/// The most of labels, names and values together, in bytes.
const LABELS_MAX: usize = 8 * 1024;

impl SettingsRequest {
    /// The settings of a session: wishes where there are some, `defaults` elsewhere, `ceilings` never exceeded.
    ///
    /// # Errors
    /// Names the first wish that cannot be had. Nothing is clipped in silence.
    pub fn resolve(
        &self,
        defaults: &Settings,
        ceilings: &Settings,
    ) -> Result<Settings, SettingsError> {
        let (limits, most) = (&defaults.limits, &ceilings.limits);
        let (times, latest) = (&defaults.timeouts, &ceilings.timeouts);
        let limits = Limits {
            memory_bytes: pick(
                "memory_bytes",
                self.memory_bytes,
                limits.memory_bytes,
                64 * MIB,
                most.memory_bytes,
            )?,
            cpu_millis: pick32(
                "cpu_millis",
                self.cpu_millis,
                limits.cpu_millis,
                50,
                most.cpu_millis,
            )?,
            processes: pick32(
                "processes",
                self.processes,
                limits.processes,
                4,
                most.processes,
            )?,
            disk_bytes: pick(
                "disk_bytes",
                self.disk_bytes,
                limits.disk_bytes,
                MIB,
                most.disk_bytes,
            )?,
            workspace_bytes: pick(
                "workspace_bytes",
                self.workspace_bytes,
                limits.workspace_bytes,
                MIB,
                most.workspace_bytes,
            )?,
            cell_cpu_ms: match self.cell_cpu_ms {
                None => limits.cell_cpu_ms,
                asked => {
                    let most = most.cell_cpu_ms.unwrap_or(u64::MAX);
                    Some(pick("cell_cpu_ms", asked, most, 1, most)?)
                }
            },
            cell_output_bytes: pick(
                "cell_output_bytes",
                self.cell_output_bytes,
                limits.cell_output_bytes,
                1,
                most.cell_output_bytes,
            )?,
        };
        let ceiling_ms = pick(
            "ceiling_ms",
            self.ceiling_ms,
            times.ceiling_ms,
            1,
            latest.ceiling_ms,
        )?;
        // A ceiling below the default limit pulls that default down with it; an explicit wish above it is refused.
        let timeouts = Timeouts {
            cell_ms: pick(
                "cell_ms",
                self.cell_ms,
                times.cell_ms.min(ceiling_ms),
                1,
                ceiling_ms,
            )?,
            ceiling_ms,
            extend_on_progress_ms: match self.extend_on_progress_ms {
                // Nothing is how it is switched off.
                Some(0) => 0,
                asked => pick(
                    "extend_on_progress_ms",
                    asked,
                    times.extend_on_progress_ms,
                    Timeouts::LEAST_EXTENSION_MS,
                    latest.ceiling_ms.max(Timeouts::LEAST_EXTENSION_MS),
                )?,
            },
            warning_ms: pick(
                "warning_ms",
                self.warning_ms,
                times.warning_ms,
                0,
                latest.ceiling_ms,
            )?,
            input_ms: pick(
                "input_ms",
                self.input_ms,
                times.input_ms,
                1,
                latest.input_ms,
            )?,
            idle_ms: pick("idle_ms", self.idle_ms, times.idle_ms, 1, latest.idle_ms)?,
        };
        check_env(&self.env)?;
        check_labels(&self.labels)?;
        let mut env = defaults.env.clone();
        env.extend(self.env.clone());
        Ok(Settings {
            limits,
            timeouts,
            env,
            labels: self.labels.clone(),
        })
    }
}

/// Checks labels.
///
/// # Errors
/// They are longer than is kept.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), SettingsError> {
    let bytes = labels.iter().map(|(name, value)| name.len() + value.len());
    let bytes = bytes.sum();
    if bytes > LABELS_MAX {
        return Err(SettingsError::Labels {
            bytes,
            most: LABELS_MAX,
        });
    }
    Ok(())
}

fn pick(
    name: &'static str,
    asked: Option<u64>,
    default: u64,
    least: u64,
    most: u64,
) -> Result<u64, SettingsError> {
    match asked {
        None => Ok(default),
        Some(asked) if (least..=most).contains(&asked) => Ok(asked),
        Some(asked) => Err(SettingsError::OutOfRange {
            name,
            asked,
            least,
            most,
        }),
    }
}

fn pick32(
    name: &'static str,
    asked: Option<u32>,
    default: u32,
    least: u32,
    most: u32,
) -> Result<u32, SettingsError> {
    let picked = pick(
        name,
        asked.map(u64::from),
        u64::from(default),
        u64::from(least),
        u64::from(most),
    )?;
    Ok(u32::try_from(picked).expect("a value between two u32 fits one"))
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), SettingsError> {
    let refuse = |name: &str, why| {
        Err(SettingsError::Env {
            name: name.to_owned(),
            why,
        })
    };
    let mut total = 0;
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return refuse(
                name,
                "a name is not empty and has no `=`, and neither has a NUL",
            );
        }
        total += name.len() + value.len();
        if total > ENV_MAX {
            return refuse(name, "all of them together exceed 64 KiB");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings() -> Settings {
        let mut ceilings = Settings::default();
        ceilings.limits.memory_bytes = 1024 * MIB;
        ceilings
    }

    #[test]
    fn what_is_left_out_is_the_servers_default() {
        let settings = SettingsRequest::default().resolve(&Settings::default(), &ceilings());
        assert_eq!(settings, Ok(Settings::default()));
    }

    #[test]
    fn a_wish_above_the_ceiling_is_refused_and_named() {
        let wish = SettingsRequest {
            memory_bytes: Some(2048 * MIB),
            ..SettingsRequest::default()
        };
        let error = wish.resolve(&Settings::default(), &ceilings()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`memory_bytes` is 2147483648, but this server allows 67108864 to 1073741824"
        );
    }

    #[test]
    fn a_low_ceiling_pulls_the_default_limit_down() {
        let wish = SettingsRequest {
            ceiling_ms: Some(10_000),
            ..SettingsRequest::default()
        };
        let settings = wish.resolve(&Settings::default(), &ceilings()).unwrap();
        assert_eq!(settings.timeouts.cell_ms, 10_000);
    }

    #[test]
    fn an_impossible_environment_variable_is_refused() {
        let env = BTreeMap::from([("A=B".to_owned(), "1".to_owned())]);
        let wish = SettingsRequest {
            env,
            ..SettingsRequest::default()
        };
        assert!(wish.resolve(&Settings::default(), &ceilings()).is_err());
    }
}
